"""Two tenants and a shared one: who sees what, and how to see why."""

import vectoracl
from vectoracl import Chunk, Principal

acl = vectoracl.connect(
    {
        "version": 1,
        "stores": {"main": {"adapter": "memory", "dimension": 384}},
        "tenants": {"shared": ["public"]},
        "embedder": {"use": "hashed"},
    }
)
ann = Principal("ann", "acme", authenticated_by="oidc:https://issuer.example")
bob = Principal("bob", "beta", authenticated_by="oidc:https://issuer.example")
press = Principal.service("press", "public", "publishes what everybody may read")

acl.scoped(ann).upsert([Chunk("c1", "plan", "The merger with Initech closes in May.")])
acl.scoped(bob).upsert([Chunk("c1", "plan", "We open an office in Lyon.")])
acl.scoped(press).upsert([Chunk("c1", "news", "Mergers are regulated by the cartel office.")])

for principal in (ann, bob):
    result = acl.scoped(principal).search("merger", k=5)
    print(f"{principal.id} of {principal.tenant}:")
    for hit in result:
        print(f"  {hit.score:5.2f}  {hit.tenant:7} {hit.document:5} {hit.text}")
    print(" ", acl.explain(principal).summary())

acl.close()
