"""Tables as frameworks and applications make them, without any isolation: what most people point `check` at first.

Each is copied from what the named project creates (its models, migrations or documentation), with a few rows of two
tenants. `{app}` is the application's role, `{boss}` who made the database.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Layout:
    """`insert` takes the tenant, `read` returns the tenants that are seen; `as_app`: its application made it."""

    name: str
    tables: str
    table: str
    tenant: str
    insert: str
    read: str
    as_app: bool = True
    tenants: tuple[str, str] = ("acme", "beta")
    change: str = ""
    # What stays after the script, beside what the server's age brings: rules that the script names as left.
    left: frozenset[str] = frozenset()
    also: tuple[str, ...] = field(default=())


LANGCHAIN = Layout(
    "langchain",
    """
    CREATE TABLE langchain_pg_collection (uuid uuid PRIMARY KEY, name varchar NOT NULL UNIQUE, cmetadata json);
    CREATE TABLE langchain_pg_embedding (id varchar PRIMARY KEY, collection_id uuid REFERENCES langchain_pg_collection
        (uuid) ON DELETE CASCADE, embedding vector, document varchar, cmetadata jsonb);
    CREATE INDEX ix_cmetadata_gin ON langchain_pg_embedding USING gin (cmetadata jsonb_path_ops);
    INSERT INTO langchain_pg_collection VALUES ('11111111-1111-1111-1111-111111111111', 'docs', '{{}}');
    """,
    "public.langchain_pg_embedding",
    "cmetadata->>tenant_id",
    "INSERT INTO public.langchain_pg_embedding VALUES (gen_random_uuid()::text, "
    "'11111111-1111-1111-1111-111111111111', '[1,2,3]', 'text', "
    "jsonb_build_object('tenant_id', %(t)s::text, 'source', 'a')) "
    "ON CONFLICT (id) DO UPDATE SET document = excluded.document",
    "SELECT DISTINCT cmetadata ->> 'tenant_id' FROM public.langchain_pg_embedding",
    change="UPDATE public.langchain_pg_embedding SET cmetadata = jsonb_set(cmetadata, '{{tenant_id}}', %(t)s)",
)
LLAMAINDEX = Layout(
    "llamaindex",
    """
    CREATE TABLE data_docs (id bigserial PRIMARY KEY, text varchar NOT NULL, metadata_ json, node_id varchar,
        embedding vector(3));
    CREATE INDEX docs_idx_1 ON data_docs ((metadata_ ->> 'ref_doc_id'));
    CREATE INDEX docs_embedding_idx ON data_docs USING hnsw (embedding vector_cosine_ops);
    """,
    "public.data_docs",
    "metadata_->>tenant_id",
    "INSERT INTO public.data_docs (text, metadata_, node_id, embedding) VALUES ('x', "
    "json_build_object('tenant_id', %(t)s::text), 'n', '[1,2,3]')",
    "SELECT DISTINCT metadata_ ->> 'tenant_id' FROM public.data_docs",
)
HAYSTACK = Layout(
    "haystack",
    """
    CREATE TABLE haystack_documents (id varchar(128) PRIMARY KEY, embedding vector(3), content text, blob_data bytea,
        blob_meta jsonb, blob_mime_type varchar(255), meta jsonb);
    CREATE INDEX haystack_keyword_index ON haystack_documents USING gin (to_tsvector('english', content));
    CREATE INDEX haystack_hnsw_index ON haystack_documents USING hnsw (embedding vector_cosine_ops);
    """,
    "public.haystack_documents",
    "meta->>company_id",
    "INSERT INTO public.haystack_documents (id, embedding, content, meta) VALUES (md5(random()::text), '[1,2,3]', 'x', "
    "jsonb_build_object('company_id', %(t)s::text)) ON CONFLICT (id) DO UPDATE SET content = excluded.content",
    "SELECT DISTINCT meta ->> 'company_id' FROM public.haystack_documents",
)
MEM0 = Layout(
    "mem0",
    """
    CREATE TABLE mem0 (id uuid PRIMARY KEY, vector vector(3), payload jsonb);
    CREATE INDEX mem0_hnsw_idx ON mem0 USING hnsw (vector vector_cosine_ops);
    """,
    "public.mem0",
    "payload->>user_id",
    "INSERT INTO public.mem0 VALUES (gen_random_uuid(), '[1,2,3]', jsonb_build_object('user_id', %(t)s::text))",
    "SELECT DISTINCT payload ->> 'user_id' FROM public.mem0",
)
SUPABASE = Layout(
    "supabase",
    """
    CREATE TABLE documents (id bigserial PRIMARY KEY, content text, metadata jsonb, embedding vector(3));
    CREATE FUNCTION match_documents(query_embedding vector(3), match_count int DEFAULT 5, filter jsonb DEFAULT '{{}}')
        RETURNS TABLE (id bigint, content text, metadata jsonb, similarity float) LANGUAGE plpgsql AS $f$
        #variable_conflict use_column
        BEGIN RETURN QUERY SELECT id, content, metadata, 1 - (documents.embedding <=> query_embedding) AS similarity
        FROM documents WHERE metadata @> filter ORDER BY documents.embedding <=> query_embedding
        LIMIT match_count; END $f$;
    ALTER TABLE documents ENABLE ROW LEVEL SECURITY;
    CREATE POLICY "Enable read access for all users" ON documents FOR SELECT USING (true);
    CREATE POLICY "Enable insert for everyone" ON documents FOR INSERT WITH CHECK (true);
    GRANT ALL ON ALL TABLES IN SCHEMA public TO {app}; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {app};
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO {app};
    """,
    "public.documents",
    "metadata->>tenant_id",
    "INSERT INTO public.documents (content, metadata, embedding) VALUES ('x', jsonb_build_object('tenant_id', "
    "%(t)s::text), '[1,2,3]')",
    "SELECT DISTINCT metadata ->> 'tenant_id' FROM public.match_documents('[1,2,3]', 100)",
    as_app=False,
)
PLAIN = Layout(
    "plain",
    """
    CREATE TABLE docs (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id text, title text);
    CREATE TABLE chunks (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id text DEFAULT 'public',
        doc_id bigint REFERENCES docs, body text, embedding vector(3));
    CREATE INDEX ON chunks USING hnsw (embedding vector_cosine_ops);
    CREATE VIEW recent AS SELECT * FROM chunks;
    GRANT ALL ON ALL TABLES IN SCHEMA public TO {app}; GRANT SELECT ON chunks TO PUBLIC;
    """,
    "public.chunks",
    "tenant_id",
    "INSERT INTO public.chunks (tenant_id, body, embedding) VALUES (%(t)s::text, 'x', '[1,2,3]')",
    "SELECT DISTINCT tenant_id FROM public.recent",
    as_app=False,
    change="UPDATE public.chunks SET tenant_id = %(t)s::text",
    left=frozenset({"PG067", "PG100", "PG130"}),
)
PARTITIONED = Layout(
    "partitioned",
    """
    CREATE SCHEMA rag; GRANT USAGE ON SCHEMA rag TO {app};
    CREATE TABLE rag.embeddings (workspace_id uuid, id uuid DEFAULT gen_random_uuid(), body text, e halfvec(3),
        PRIMARY KEY (workspace_id, id)) PARTITION BY HASH (workspace_id);
    CREATE TABLE rag.embeddings_0 PARTITION OF rag.embeddings FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE rag.embeddings_1 PARTITION OF rag.embeddings FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    CREATE INDEX ON rag.embeddings USING hnsw (e halfvec_cosine_ops);
    GRANT ALL ON ALL TABLES IN SCHEMA rag TO {app};
    """,
    "rag.embeddings",
    "workspace_id",
    "INSERT INTO rag.embeddings (workspace_id, body, e) VALUES (%(t)s::uuid, 'x', '[1,2,3]')",
    "SELECT DISTINCT workspace_id::text FROM rag.embeddings",
    as_app=False,
    tenants=("aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa", "bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb"),
)
DJANGO = Layout(
    "django",
    """
    CREATE TABLE tenants (id bigserial PRIMARY KEY, name varchar(100) NOT NULL);
    INSERT INTO tenants (name) VALUES ('one'), ('two');
    CREATE TABLE search_chunk (id bigserial PRIMARY KEY, text text NOT NULL, embedding vector(3) NOT NULL,
        tenant_id bigint NOT NULL REFERENCES tenants (id) DEFERRABLE INITIALLY DEFERRED);
    CREATE INDEX search_chunk_tenant_idx ON search_chunk (tenant_id);
    """,
    "public.search_chunk",
    "tenant_id",
    "INSERT INTO public.search_chunk (text, embedding, tenant_id) VALUES ('x', '[1,2,3]', %(t)s::bigint)",
    "SELECT DISTINCT tenant_id::text FROM public.search_chunk",
    tenants=("1", "2"),
    change="UPDATE public.search_chunk SET tenant_id = %(t)s::bigint",
)
CITUS = Layout(
    "citus",
    """
    CREATE TABLE companies (id int PRIMARY KEY, name text); INSERT INTO companies VALUES (1, 'one'), (2, 'two');
    CREATE TABLE docs (company_id int NOT NULL REFERENCES companies, id bigserial, PRIMARY KEY (company_id, id));
    CREATE TABLE vectors (company_id int NOT NULL, id bigserial, doc_id bigint, embedding vector(3) NOT NULL,
        PRIMARY KEY (company_id, id), FOREIGN KEY (company_id, doc_id) REFERENCES docs (company_id, id));
    """,
    "public.vectors",
    "company_id",
    "INSERT INTO public.vectors (company_id, embedding) VALUES (%(t)s::int, '[1,2,3]')",
    "SELECT DISTINCT company_id::text FROM public.vectors",
    tenants=("1", "2"),
)
NO_TENANT = Layout(
    "no tenant",
    """
    CREATE TABLE notes (id bigserial PRIMARY KEY, body text, embedding vector(3));
    """,
    "public.notes",
    "",
    "INSERT INTO public.notes (tenant_id, body, embedding) VALUES (%(t)s::text, 'x', '[1,2,3]')",
    "SELECT DISTINCT tenant_id FROM public.notes",
)
ALL = (LANGCHAIN, LLAMAINDEX, HAYSTACK, MEM0, SUPABASE, PLAIN, PARTITIONED, DJANGO, CITUS)
