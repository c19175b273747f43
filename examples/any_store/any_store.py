"""One program, four stores: which one it runs on is the configuration's business.

vectoracl provision -c examples/any_store/qdrant.toml
python examples/any_store/any_store.py examples/any_store/qdrant.toml
"""

import sys

import vectoracl
from vectoracl import Chunk, F, Lexical, Principal

acl = vectoracl.connect(sys.argv[1])
ann = Principal("ann", "acme", authenticated_by="oidc:https://issuer.example")
bob = Principal("bob", "beta", authenticated_by="oidc:https://issuer.example")

acl.scoped(ann).replace(
    "plan",
    [
        Chunk("1", "plan", "The merger with Initech closes in May.", metadata={"year": 2026}),
        Chunk("2", "plan", "The merger of the two newsletters is done.", metadata={"year": 2019}),
    ],
)
acl.scoped(bob).replace("plan", [Chunk("1", "plan", "We open an office in Lyon.", metadata={"year": 2026})])

for principal in (ann, bob):
    docs = acl.scoped(principal)
    print(f"{principal.id} of {principal.tenant}:")
    for hit in docs.search("when is the merger?", k=5, where=F.year >= 2020):
        print(f"  {hit.score:5.2f}  {hit.tenant:5} {hit.text}")
    try:
        words = [hit.text for hit in docs.search(Lexical("merger"), k=5)]
        print(f"  by the word: {words}")
    except vectoracl.UnsupportedPredicateError as error:  # what a store cannot do is refused before anything is sent
        print(f"  by the word: refused: {error}")

acl.close()
