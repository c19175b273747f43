"""The functions, operators and keywords of SQL that do not access a table by themselves."""

from __future__ import annotations


def listed(text: str) -> frozenset[str]:
    """Return the words of *text*."""
    return frozenset(text.split())


TEXT_TYPES = frozenset(("text", "varchar", "uuid"))

OPERATORS = listed(
    ":: = <> != < > <= >= + - * / % ^ || -> ->> #> #>> #- @> <@ ? ?| ?& && ~ ~* !~ !~* ~~ !~~ & | # << >> => "
    "<-> <=> <#> <+> <~> <%> @@ @?"
)

# Words that may stand before a bracket and are not functions.
BEFORE_PAREN = listed(
    "in any all some exists array and or not over filter group when then else case by on between like ilike is "
    "distinct row operator limit offset using as from where set partition end within ordinality asc desc"
)

FUNCTIONS = listed(
    # the grammar's own
    "cast coalesce nullif greatest least extract substring position overlay trim row numeric decimal varchar char "
    "character timestamp time bit float interval left right "
    # aggregates and windows
    "count sum avg min max array_agg string_agg bool_and bool_or every json_agg jsonb_agg json_object_agg "
    "jsonb_object_agg row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value "
    "nth_value stddev variance percentile_cont percentile_disc mode "
    # numbers
    "abs ceil ceiling floor round trunc sqrt power exp ln log mod sign random pi degrees radians sin cos tan "
    # text
    "lower upper length char_length octet_length btrim ltrim rtrim lpad rpad replace reverse repeat split_part strpos "
    "substr concat concat_ws format md5 sha256 encode decode convert_to convert_from starts_with translate initcap "
    "quote_ident quote_literal quote_nullable regexp_replace regexp_match regexp_matches regexp_split_to_array "
    "regexp_split_to_table regexp_count regexp_like string_to_array string_to_table array_to_string hashtext "
    "hashtextextended to_char to_number chr ascii "
    # time
    "now clock_timestamp transaction_timestamp statement_timestamp date_part date_trunc age make_date make_interval "
    "make_timestamptz to_timestamp to_date "
    # arrays and JSON
    "unnest generate_series generate_subscripts cardinality array_length array_position array_positions array_remove "
    "array_append array_prepend array_cat array_send array_upper array_lower "
    "jsonb_array_elements jsonb_array_elements_text "
    "jsonb_each jsonb_each_text jsonb_object_keys jsonb_typeof jsonb_exists jsonb_exists_any jsonb_exists_all "
    "jsonb_array_length jsonb_build_object jsonb_build_array jsonb_set jsonb_insert jsonb_strip_nulls "
    "jsonb_extract_path jsonb_extract_path_text jsonb_path_exists jsonb_path_query jsonb_path_match "
    "jsonb_to_recordset jsonb_to_record jsonb_populate_recordset json_array_elements json_array_elements_text "
    "json_build_object json_build_array json_typeof to_json to_jsonb "
    # full text search
    "to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery ts_rank ts_rank_cd ts_headline "
    "setweight tsvector_to_array "
    # vectors
    "cosine_distance l2_distance l1_distance inner_product vector_dims vector_norm l2_normalize subvector "
    "binary_quantize hamming_distance jaccard_distance "
    # the server and its catalog
    "current_setting current_database current_schema current_schemas session_user current_user version pg_backend_pid "
    "txid_current pg_current_snapshot pg_snapshot_xmax pg_postmaster_start_time pg_is_in_recovery "
    "pg_typeof to_regtype to_regclass to_regnamespace to_regrole to_regproc "
    "to_regprocedure format_type obj_description col_description shobj_description aclexplode acldefault "
    "has_table_privilege has_schema_privilege has_database_privilege has_column_privilege has_function_privilege "
    "has_any_column_privilege has_parameter_privilege has_type_privilege row_security_active pg_encoding_to_char "
    "pg_has_role pg_get_expr pg_get_constraintdef pg_get_indexdef pg_get_viewdef pg_get_functiondef pg_get_ruledef "
    "pg_get_triggerdef pg_get_partkeydef pg_get_userbyid pg_get_function_identity_arguments pg_get_function_result "
    "pg_get_function_arguments pg_table_is_visible pg_function_is_visible pg_type_is_visible pg_partition_tree "
    "pg_partition_root pg_partition_ancestors pg_identify_object pg_describe_object parse_ident "
    # locks
    "pg_advisory_lock pg_advisory_lock_shared pg_advisory_unlock pg_advisory_unlock_shared pg_advisory_xact_lock "
    "pg_advisory_xact_lock_shared pg_try_advisory_lock pg_try_advisory_xact_lock pg_sleep"
)
