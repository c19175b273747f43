"""Write `src/vectoracl/model/identifier_tables.py` from the Unicode standard, as ICU knows it.

Run: python tools/identifier_tables.py [VERSION OF ICU, default 72] (Debian: apt-get install libicu72). The library is
asked for the properties of every code point, so the table is that of the standard's files: UTS 39
Identifier_Type = Recommended or Inclusion, which are the code points with Identifier_Status = Allowed, and of the
Unicode Character Database Default_Ignorable_Code_Point, Joining_Type and Extended_Pictographic.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

TARGET = Path(__file__).resolve().parents[1] / "src" / "vectoracl" / "identifier_tables.py"
LAST = 0x10FFFF
DEFAULT_IGNORABLE = 5  # UCHAR_DEFAULT_IGNORABLE_CODE_POINT
EXTENDED_PICTOGRAPHIC = 64  # UCHAR_EXTENDED_PICTOGRAPHIC
JOINING_TYPE = 0x1007  # UCHAR_JOINING_TYPE
OVERLAY = 1  # Canonical_Combining_Class: a mark through a letter, which makes it look like another one
DUAL, LEFT, RIGHT, TRANSPARENT = 2, 3, 4, 5  # UJoiningType


class Icu:
    """The functions of ICU's C interface that are needed; their names end with its version."""

    def __init__(self, version: str) -> None:
        self._common = ctypes.CDLL(f"libicuuc.so.{version}")
        self._more = ctypes.CDLL(f"libicui18n.so.{version}")
        self._version = version

    def _function(self, name: str) -> Callable[..., int]:
        library = self._more if name.startswith("uspoof") else self._common
        function: Callable[..., int] = getattr(library, f"{name}_{self._version}")
        return function

    def unicode(self) -> str:
        """Return the version of the Unicode standard."""
        parts = (ctypes.c_uint8 * 4)()
        self._function("u_getUnicodeVersion")(parts)
        return ".".join(str(one) for one in parts[:3])

    def binary(self, code: int, what: int) -> bool:
        """Tell whether *code* has the binary property *what*."""
        return bool(self._function("u_hasBinaryProperty")(code, what) & 0xFF)

    def joining(self, code: int) -> int:
        """Return the Joining_Type of *code*."""
        return self._function("u_getIntPropertyValue")(code, JOINING_TYPE)

    def combining(self, code: int) -> int:
        """Return the Canonical_Combining_Class of *code*."""
        return self._function("u_getCombiningClass")(code) & 0xFF

    def allowed(self) -> Callable[[int], bool]:
        """Return a test for Identifier_Status = Allowed."""
        sets = []
        for name in ("uspoof_getRecommendedSet", "uspoof_getInclusionSet"):
            function = self._function(name)
            function.restype = ctypes.c_void_p  # type: ignore[attr-defined]
            status = ctypes.c_int(0)
            sets.append(ctypes.c_void_p(function(ctypes.byref(status))))
            if status.value > 0:
                raise SystemExit(f"{name} failed: {status.value}")
        contains = self._function("uset_contains")
        return lambda code: any(contains(one, code) & 0xFF for one in sets)


def ranges(codes: Iterable[int]) -> list[tuple[int, int]]:
    """Return ascending *codes* as ranges, both ends included."""
    found: list[tuple[int, int]] = []
    for code in codes:
        if found and found[-1][1] == code - 1:
            found[-1] = (found[-1][0], code)
        else:
            found.append((code, code))
    return found


def lines(name: str, codes: Iterable[int], *, comment: str) -> list[str]:
    """Return the definition of a table: its ranges in hex, a few to a line."""
    made = [f"{a:X}" if a == b else f"{a:X}-{b:X}" for a, b in ranges(codes)]
    rows, row = [], ""
    for one in made:
        if len(row) + len(one) + 1 > 112:
            rows.append(row)
            row = ""
        row = f"{row} {one}" if row else one
    rows.append(row)
    return ["", f'{name} = """', *rows, '"""', f'"""{comment}"""']


def main() -> None:
    """Write the table."""
    icu = Icu(sys.argv[1] if len(sys.argv) > 1 else "72")
    codes = [code for code in range(0x80, LAST + 1) if not 0xD800 <= code <= 0xDFFF]
    allowed = icu.allowed()
    ignorable = {code for code in codes if icu.binary(code, DEFAULT_IGNORABLE)}
    joining = {code: icu.joining(code) for code in codes}
    text = [
        '"""Tables of the Unicode standard for `ids`. Made by tools/identifier_tables.py; do not edit."""',
        "",
        f'UNICODE = "{icu.unicode()}"',
        *lines(
            "ALLOWED",
            (code for code in codes if allowed(code) and code not in ignorable and icu.combining(code) != OVERLAY),
            comment="UTS 39, Identifier_Status = Allowed, beyond ASCII; nothing that is ignorable, no overlays.",
        ),
        *lines("IGNORABLE", sorted(ignorable), comment="Default_Ignorable_Code_Point."),
        *lines(
            "JOINS_NEXT",
            (code for code in codes if joining[code] in (DUAL, LEFT)),
            comment="Joining_Type = Dual_Joining or Left_Joining.",
        ),
        *lines(
            "JOINS_PREVIOUS",
            (code for code in codes if joining[code] in (DUAL, RIGHT)),
            comment="Joining_Type = Dual_Joining or Right_Joining.",
        ),
        *lines(
            "PICTOGRAPHS",
            (code for code in codes if icu.binary(code, EXTENDED_PICTOGRAPHIC)),
            comment="Extended_Pictographic.",
        ),
    ]
    TARGET.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
