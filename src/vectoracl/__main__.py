"""`python -m vectoracl` is `vectoracl`."""

from vectoracl.cli import main

if __name__ == "__main__":
    main()
