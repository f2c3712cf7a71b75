"""Mutants of access: roles, tenants' files, opening published data, API keys and the report."""

from bench.mutations.mutant import Mutant

FILES, API, KEYS = "tests/warehouse_part/test_access.py", "tests/serve/test_api.py", "tests/serve/test_keys.py"
SQL = f"{FILES}::test_sql_reaches_nothing_outside_the_file"
TENANT = f"{FILES}::test_a_tenant_gets_its_rows_and_no_byte_of_another"
POLICY = f"{FILES}::test_a_policy_that_is_none_publishes_nothing"
ROLES = f"{FILES}::test_a_role_reads_its_marts_in_both_formats"
ONE_KEY = f"{KEYS}::test_a_key_opens_its_tenant_until_it_is_revoked"
ONE_TENANT = f"{API}::test_a_key_opens_one_tenants_rows"
PUBLISH, READING, SERVED = "pipelines/warehouse/publish.py", "pipelines/warehouse/reading.py", "pipelines/serve/keys.py"

ACCESS = (
    Mutant("every role reads every mart", "pipelines/warehouse/access.py", "for role in self.roles if role.name in audience)", "for role in self.roles)", f"{FILES}::test_a_mart_that_names_nobody_is_in_no_folder"),
    Mutant("a mart that is not described is everybody's", PUBLISH, "if role in readers.get(mart, ())}", "if role in readers.get(mart, (role,))}", f"{FILES}::test_a_mart_that_names_nobody_is_in_no_folder"),
    Mutant("a misspelt role hides a mart", "pipelines/warehouse/access.py", "not all(name in known for name in audience)", "False", f"{FILES}::test_an_audience_that_is_no_list_of_roles_publishes_nothing"),
    Mutant("patterns of marts are passed over", "pipelines/warehouse/access.py", '    if "marts" in text:  # a policy of 0.1.0', '    if "patterns" in text:  # a policy of 0.1.0', f"{FILES}::test_patterns_of_marts_are_refused"),
    Mutant("a role sees every column", "pipelines/warehouse/access.py", "return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in self.without)]", "return list(names)", f"{FILES}::test_only_the_operator_sees_devices_and_no_session"),
    Mutant("a role's name is a path", "pipelines/warehouse/access.py", '    if not is_slug(name) or not text["why"]:', '    if not text["why"]:', POLICY),
    Mutant("a role needs no reason", "pipelines/warehouse/access.py", ' or not text["why"]:', ":", POLICY),
    Mutant("a pattern for all is taken letter by letter", "pipelines/warehouse/access.py", "    if not isinstance(text[\"without\"], list) or not all(isinstance(pattern, str) for pattern in text[\"without\"]):\n        raise TypeError(name)\n", "", POLICY),
    Mutant("a role's Parquet file is everybody's", PUBLISH, "            if columns == listed[mart]:\n", "            if columns:\n", ROLES),
    Mutant("a tenant gets everybody's rows", PUBLISH, '                    " WHERE tenant_id = ?",', '                    " WHERE ? <> \'\'",', TENANT),
    Mutant("a tenant's file has every mart", PUBLISH, "_write_tenants(connection, role, read_by(role),", "_write_tenants(connection, role, listed,", f"{FILES}::test_a_tenants_file_is_of_its_role"),
    Mutant("a tenant's file has every column", PUBLISH, "AS SELECT {_list(role.columns(columns))} FROM marts.{mart}", "AS SELECT {_list(columns)} FROM marts.{mart}", f"{FILES}::test_a_tenants_file_is_of_its_role"),
    Mutant("a tenant's name is a path", PUBLISH, "        if not is_slug(tenant):\n", "        if not tenant:\n", f"{FILES}::test_a_tenant_that_is_no_name_becomes_no_folder"),
    Mutant("columns of the pipeline's own are published", PUBLISH, """        " AND column_name NOT LIKE '\\\\_%' ESCAPE '\\\\' ORDER BY ordinal_position",""", '        " ORDER BY ordinal_position",', "tests/warehouse_part/test_publish.py::test_what_is_published"),
    Mutant("everybody of the machine reads what is published", PUBLISH, 'path.chmod(0o400 if path.suffix == ".duckdb" else 0o600)', "path.chmod(0o644)", f"{FILES}::test_only_its_owner_reads_what_is_published"),
    Mutant("published data opens files", READING, '    "enable_external_access": "false",\n', "", SQL),
    Mutant("published data opens settings", READING, '    "lock_configuration": "true",\n', '    "lock_configuration": "false",\n', SQL),
    Mutant("published data can be written", READING, "read_only=True, config=SETTINGS", "read_only=False, config=SETTINGS", SQL),
    Mutant("any key opens", SERVED, '        if hmac.compare_digest(entry["sha256"], digest):', '        if hmac.compare_digest(entry["sha256"][:0], digest[:0]):', ONE_KEY),
    Mutant("a revoked key opens", SERVED, '    kept = [entry for entry in entries if entry["name"] != name]', '    kept = [entry for entry in entries if entry["tenant"] != name]', ONE_KEY),
    Mutant("a key of a tenant that is none", SERVED, "    if not is_slug(tenant):", "    if not tenant:", ONE_KEY),
    Mutant("keys are kept in clear", SERVED, '"sha256": _sha256(key)}])', '"sha256": _sha256(key), "key": key}])', f"{KEYS}::test_only_hashes_are_kept_and_only_the_owner_reads_them"),
    Mutant("a short key", SERVED, "secrets.token_urlsafe(32)", "secrets.token_urlsafe(8)", f"{KEYS}::test_only_hashes_are_kept_and_only_the_owner_reads_them"),
    Mutant("every address is loopback", "pipelines/commands/reading.py", "ipaddress.ip_address(host).is_loopback", "ipaddress.ip_address(host).is_private", f"{KEYS}::test_it_binds_to_loopback_unless_told_otherwise"),
)  # fmt: skip
