"""What an agent gets: a handle that can only search, only recent documents, with a filter that the model writes."""

import json

import vectoracl
from vectoracl import Chunk, F, FieldType, Predicate, Principal

FIELDS = {"year": "number", "lang": "keyword"}
acl = vectoracl.connect(
    {
        "version": 1,
        "stores": {"main": {"adapter": "memory", "dimension": 384, "metadata": FIELDS}},
        "embedder": {"use": "hashed"},
    }
)
ann = Principal("ann", "acme", authenticated_by="oidc:https://issuer.example")
docs = acl.scoped(ann)
docs.upsert(
    [
        Chunk("c1", "rules", "Travel is booked by the office.", metadata={"year": 2024, "lang": "en"}),
        Chunk("c2", "rules", "Travel was booked by fax.", metadata={"year": 1998, "lang": "en"}),
    ]
)

tool = docs.narrow(F.year >= 2020, actions={"search"})
schema = Predicate.json_schema({name: FieldType(kind) for name, kind in FIELDS.items()})
print("the tool's parameter schema has", len(schema["$defs"]["filter"]["oneOf"]), "forms")


def search_tool(arguments: str) -> str:
    """What the model calls: it chooses words and a filter, never a principal."""
    given = json.loads(arguments)
    where = Predicate.from_dict(given["filter"]) if "filter" in given else vectoracl.ALWAYS
    return "\n".join(hit.text or "" for hit in tool.search(given["text"], k=3, where=where))


print(search_tool('{"text": "how do I book travel?"}'))
print(
    search_tool('{"text": "travel", "filter": {"field": "year", "op": "lt", "value": 2000}}')
    or "(nothing: 1998 is out)"
)
try:
    search_tool('{"text": "travel", "filter": {"field": "tenant_id", "op": "eq", "value": "beta"}}')
except vectoracl.ReservedFieldError as error:
    print("refused:", error)

acl.close()
