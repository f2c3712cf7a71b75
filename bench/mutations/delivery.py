"""Mutants of delivery: reading, spooling, shipping, landing and loading."""

from bench.mutations.mutant import Mutant

MACHINE = "tests/torture/test_machine.py::test_any_order_of_steps_and_deaths_comes_to_the_truth"
EVERY_POINT = "tests/torture/test_protocol.py::test_dying_once_at_every_point_loses_and_doubles_nothing"
POWER = "tests/torture/test_power_loss.py::test_no_committed_batch_is_lost_with_the_power[20]"
LINES, SHIP, SPOOL = "tests/device/test_lines.py", "tests/device/test_ship.py", "tests/device/test_spool.py"
CONSENT, COLLECT = "tests/device/test_consent.py", "tests/device/test_collect.py"
UNCHANGED = "tests/device/test_unchanged.py"
COPIES, OPENCLAW = "tests/device/test_copies.py", "tests/device/test_openclaw.py"
LANDING, LOAD = "tests/warehouse_part/test_landing.py", "tests/warehouse_part/test_load.py"

DELIVERY = (
    Mutant(
        "checkpoint committed before the rows", "pipelines/device/collect.py",
        "                with self._state.step():\n                    for line in chunk.lines:\n",
        "                with self._state.step():\n                    self._state.set_checkpoint(source, chunk.checkpoint)\n"
        "                with self._state.step():\n                    for line in chunk.lines:\n",
        EVERY_POINT,
    ),
    Mutant(
        "unparsable lines skipped", "pipelines/device/lines.py", "        return _salvage(data, is_record)\n",
        "        return Parsed([])\n", MACHINE,
    ),
    Mutant(
        "identity by position", "pipelines/device/readers/hive/logs.py", "        return (Constant(kind), span)\n",
        "        return (kind, span, place.number)\n", "tests/device/test_hive_logs.py::test_a_span_is_the_identity_whatever_the_folder_and_the_line",
    ),
    Mutant(
        "delivered before the put", "pipelines/device/ship.py", "        try:\n            _put(batch, store, retry)\n",
        "        with state.step():\n            state.delivered(batch.seq, datetime.now(UTC))\n"
        "        try:\n            _put(batch, store, retry)\n",
        EVERY_POINT,
    ),
    Mutant(
        "rows and ledger in two transactions", "pipelines/warehouse/load.py", '        fp("load.before_ledger")\n',
        '        connection.execute("COMMIT")\n        connection.execute("BEGIN")\n        fp("load.before_ledger")\n',
        f"{LOAD}::test_a_load_that_dies_anywhere_leaves_nothing_of_its_group",
    ),
    Mutant(
        "fingerprint of the head only", "pipelines/device/lines.py",
        "    return _hash(file, 0, checkpoint.head_length) == checkpoint.head_hash and (\n"
        "        _hash(file, checkpoint.offset - checkpoint.tail_length, checkpoint.tail_length) == checkpoint.tail_hash\n"
        "    )\n",
        "    return _hash(file, 0, checkpoint.head_length) == checkpoint.head_hash\n",
        f"{LINES}::test_a_rewrite_that_drops_lines_between_two_passes_is_read_from_its_start",
    ),
    Mutant(
        "a torn end is nothing to wait for", "pipelines/device/collect.py", "return lines.is_finished(checkpoint)",
        "return True", f"{UNCHANGED}::test_a_torn_end_is_given_up_on_in_a_file_that_nobody_touches",
    ),
    Mutant(
        "a folder that had something to do is passed over", "pipelines/device/collect.py",
        "return self._sources - before if all(idle) else None", "return self._sources - before",
        f"{UNCHANGED}::test_a_torn_end_is_given_up_on_in_a_file_that_nobody_touches",
    ),
    Mutant(
        "a file is passed over within a tick of the clock", "pipelines/device/unchanged.py",
        "if files.state.changed_ns < self._settled_ns:", "if True:",
        f"{UNCHANGED}::test_a_file_within_a_tick_of_the_clock_is_looked_at_again",
    ),
    Mutant(
        "runtime logs of a passed-over folder are not looked at", "pipelines/device/readers/hive/layout.py",
        'files = files.beside(f"{path}/logs", LOG_FILES)', "pass", f"{UNCHANGED}::test_every_change_is_seen",
    ),
    Mutant(
        "spool files without fsync", "pipelines/device/spool.py", "            os.fsync(file.fileno())\n", "            pass\n", POWER,
    ),
    Mutant(
        "spool folder without fsync", "pipelines/device/spool.py", "        _sync_folder(self._ready)\n", "", POWER,
    ),
    Mutant(
        "state without fsync", "pipelines/device/state.py", '"synchronous=FULL"', '"synchronous=OFF"', POWER,
    ),
    Mutant(
        "live database opened immutable", "pipelines/device/readers/sqlite.py", "?mode=ro", "?mode=ro&immutable=1",
        "tests/device/test_progress_db.py",
    ),
    Mutant(
        "float taken for int", "pipelines/warehouse/decode.py",
        '            raise RejectedError("wrong_types")\n', "            pass\n",
        f"{LANDING}::test_a_type_that_is_another",
    ),
    Mutant(
        "error text passes", "pipelines/device/redact.py", "return error_class if column.keep", "return str if column.keep",
        "tests/device/test_privacy.py::test_a_text_in_every_position_of_a_home_is_nowhere_afterwards",
    ),
    Mutant(
        "duplicates forgotten after a day", "pipelines/warehouse/load.py",
        "arriving.record_id = old.record_id\n",
        "arriving.record_id = old.record_id\n        WHERE old._received_at > now() - INTERVAL 1 DAY\n",
        LOAD,
    ),
    Mutant(
        "a record twice in one load stands twice", "pipelines/warehouse/load.py",
        "GROUP BY ALL HAVING count(*) > 1\n", "GROUP BY ALL HAVING count(*) > 2\n", LOAD,
    ),
    Mutant(
        "a copy of a copy is the later fork's", "pipelines/device/readers/openclaw/transcripts.py",
        "Part((1, int(made.started_at.timestamp() * 1000)), values)", "Part((1, 0), values)",
        "tests/device/test_openclaw.py::test_a_copy_of_a_copy_is_the_first_sessions",
    ),
    Mutant(
        "parts of a record end with their step", "pipelines/device/state.py",
        "for key, parts in new.parts.items()", "for key, parts in {}.items()",
        "tests/device/test_claude_code.py",
    ),
    Mutant(
        "ledger by sequence number, not by hash", "pipelines/warehouse/landing.py",
        "        if entry.key in known or (parts := parse_manifest_key(entry.key)) is None:\n",
        '        seqs = {key.rpartition("-")[0] for key in known}\n'
        '        if entry.key.rpartition("-")[0] in seqs or (parts := parse_manifest_key(entry.key)) is None:\n',
        "tests/torture/test_protocol.py::test_two_batches_of_one_number_are_both_loaded",
    ),
    Mutant(
        "a timeout deletes the batch", "pipelines/device/ship.py",
        "            except StoreUnavailableError as error:\n                retry.failed(batch.seq, error)\n",
        "            except StoreUnavailableError:\n                with retry.state.step():\n"
        "                    retry.state.delivered(batch.seq, datetime.now(UTC))\n                raise LaterError from None\n",
        MACHINE,
    ),
    Mutant(
        "torn ends forced out", "pipelines/device/lines.py", "    if text and _is_whole(text):\n", "    if text:\n", f"{LINES}::test_a_torn_end_waits_and_is_read_when_it_is_completed",
    ),
    Mutant(
        "an object within a torn record trusted", "pipelines/device/lines.py",
        '    return end == len(text) or text[end] == "{"\n', "    return True\n", LINES,
    ),
    Mutant(
        "records staged again", "pipelines/device/state.py", "            if owner is None or not", "            if False and not",
        "tests/device/test_state.py",
    ),
    Mutant(
        "object named by its number, not its content", "pipelines/contract/keys.py",
        'return f"{self.path}/d/{seq:010}-{table}-{sha256[:16]}.parquet"',
        'return f"{self.path}/d/{seq:010}-{table}-0000000000000000.parquet"', "tests/contract/test_keys.py",
    ),
    Mutant(
        "manifest put first", "pipelines/device/ship.py", "    for file in batch.files:\n        data",
        "    for file in reversed(batch.files):\n        data", f"{SHIP}::test_the_manifest_is_put_last",
    ),
    Mutant(
        "rows deleted when sealed", "pipelines/device/state.py",
        '            (key, sha256, json.dumps(objects), rows, size, seq),\n        )\n',
        '            (key, sha256, json.dumps(objects), rows, size, seq),\n        )\n'
        '        self._db.execute("DELETE FROM staged WHERE seq = ?", (seq,))\n',
        f"{SHIP}::test_a_damaged_spool_file_is_sealed_again_and_never_sent",
    ),
    Mutant(
        "a damaged file is sent", "pipelines/device/spool.py", "        if hashlib.sha256(data).hexdigest() != self.sha256:\n",
        "        if not data:\n", f"{SHIP}::test_a_damaged_spool_file_is_sealed_again_and_never_sent",
    ),
    Mutant(
        "no tombstone for what the store refuses", "pipelines/device/ship.py",
        '            spool.write_tombstone(state, batch, str(error).rpartition(": ")[2])\n',
        "            with state.step():\n                state.delivered(batch.seq, datetime.now(UTC))\n",
        f"{SHIP}::test_a_batch_the_store_will_never_take_gets_a_tombstone",
    ),
    Mutant(
        "a withdrawal keeps what was staged", "pipelines/device/consent.py",
        '        forget(state)\n        fp("withdraw.forgotten")\n', '        fp("withdraw.forgotten")\n',
        f"{CONSENT}::test_a_withdrawal_empties_everything_and_a_new_grant_doubles_nothing",
    ),
    Mutant(
        "consent asked once only", "pipelines/device/ship.py",
        "            granted = consent.require(state)  # once more", "            granted = consent.current(state)  # once more",
        f"{CONSENT}::test_a_withdrawal_while_a_shipping_waits_for_the_lock_is_heeded",
    ),
    Mutant(
        "the last story to arrive stays", "pipelines/warehouse/load.py", "{newest}_is_kept DESC,", "{newest}_is_kept,",
        f"{LOAD}::test_of_two_stories_the_first_to_arrive_stays",
    ),
    Mutant(
        "an incomplete batch is answered", "pipelines/warehouse/load.py",
        "            elif found is None:\n                job.incomplete += 1",
        '            elif found is None:\n                job.refused.append((arrival, None, "incomplete"))\n'
        "                job.incomplete += 1",
        f"{LOAD}::test_a_batch_that_lacks_an_object_waits_for_it",
    ),
    Mutant(
        "the gate believes the key's hash", "pipelines/warehouse/landing.py",
        "        if hashlib.sha256(data).hexdigest() != claim.sha256:\n", "        if not data:\n",
        f"{LANDING}::test_an_object_that_is_missing_swapped_or_too_large",
    ),
    Mutant(
        "tidying takes what waits", "pipelines/device/spool.py",
        "        left -= {file.path.name for batch in self.sealed(state) for file in batch.files}\n", "",
        "tests/torture/test_protocol.py::test_what_waits_in_the_spool_is_not_made_again",
    ),
    Mutant(
        "a forgotten state goes on in its old epoch", "pipelines/device/consent.py",
        "    _new_epoch(state)  # batches count", "    # batches count",
        f"{CONSENT}::test_a_withdrawal_empties_everything_and_a_new_grant_doubles_nothing",
    ),
    Mutant(
        "the link moves before the version is there", "pipelines/warehouse/publish.py", "    aside.rename(version)\n",
        "    _point(destination / \"current\", version)\n    aside.rename(version)\n",
        "tests/warehouse_part/test_publish.py::test_killed_between_any_two_steps",
    ),
    Mutant(
        "an existing object is replaced", "pipelines/store.py",
        "                    os.link(aside, target)\n", "                    aside.replace(target)\n",
        "tests/test_store.py::test_one_of_many_writers_wins",
    ),
    Mutant(
        "reports of a restored state share a name", "pipelines/device/collect.py", "epoch, run, started_at)\n", "epoch, run)\n",
        "tests/torture/test_protocol.py::test_a_restored_state_loses_and_doubles_nothing",
    ),
    Mutant(
        "an identity with a name in it needs no key", "pipelines/device/redact.py",
        "        if all(map(is_fixed_form, natural_key)):\n", "        if natural_key:\n",
        "tests/device/test_identity.py::test_no_word_of_ten_thousand_is_found_again",
    ),
    Mutant(
        "tokens are told by the tenant's key", "pipelines/device/collect.py",
        "        key = self._plain_key(record) if record.table.is_keyless else record.key\n",
        "        key = record.key\n",
        "tests/device/test_identity.py::test_tokens_are_counted_once_where_devices_have_no_common_key",
    ),
    Mutant(
        "the second turn of one tick is a copy", "pipelines/device/state.py",
        "        if first is not None and first[1] in (None, variant):\n", "        if first is not None:\n",
        "tests/device/test_identity.py::test_two_nodes_that_end_in_one_tick_are_two_turns",
    ),
    Mutant(
        "the list of the erased is not asked", "pipelines/warehouse/registry.py",
        "        return erased.refusal(arrival, manifest) or register.refusal(arrival, manifest)\n",
        "        return register.refusal(arrival, manifest)\n",
        "tests/warehouse_part/test_erase.py::test_a_late_batch_and_a_rebuild_bring_nothing_back",
    ),
    Mutant(
        "a session named like a copy is a copy", "pipelines/device/readers/hive/copies.py",
        " and not _is_other_session(folder, original, consented):", ":",
        f"{COPIES}::test_sessions_that_are_named_like_copies_are_sessions",
    ),
    Mutant(
        "a copy that names its original is a session", "pipelines/device/readers/hive/copies.py",
        "        return named == folder.session_id\n", "        return True\n",
        f"{COPIES}::test_a_copy_of_a_chosen_session_adds_nothing",
    ),
    Mutant(
        "a colony named like a copy is none", "pipelines/device/readers/hive/layout.py",
        "return original is not None and not is_other_colony(folder.path, original)", "return original is not None",
        f"{COPIES}::test_a_colony_that_is_named_like_a_copy_is_one",
    ),
    Mutant(
        "one bad row costs a database", "pipelines/device/readers/openclaw/databases.py",
        '        except CorruptError:\n            yield BadRow("bad_type")\n            continue\n',
        "        except CorruptError:\n            raise\n", f"{OPENCLAW}::test_a_row_that_cannot_be_read_stops_no_other",
    ),
    Mutant(
        "a copy of a copy is its parent's", "pipelines/device/readers/openclaw/transcripts.py",
        "    while above.parent_session_id and above.started_at", "    while False and above.started_at",
        f"{OPENCLAW}::test_copies_of_copies_that_have_no_id_count_once",
    ),
    Mutant(
        "a number that is none is nothing", "pipelines/device/readers/openclaw/transcripts.py",
        "        count(usage.get(name) or 0) for name in", "        count(usage.get(name)) or 0 for name in",
        f"{OPENCLAW}::test_a_number_that_is_none_is_told",
    ),
    Mutant(
        "what stands behind a refused record is lost", "pipelines/device/collect.py",
        'outcome == "before_consent" or (outcome == "rejected" and named)', 'outcome not in ("staged", "duplicate")',
        "tests/device/test_claude_code.py::test_what_else_a_line_holds_does_not_hang_on_its_first_record",
    ),
    Mutant(
        "a queen's turn is a step of her graph", "models/core/internal/int_usage__steps_matched.sql",
        "    where t.agent_kind <> 'queen'\n        or t.node_id is null\n        or step_nodes.node_id is not null\n", "",
        "tests/dbt/test_steps.py::test_a_step_gives_way_to_the_event_of_its_own_turn",
    ),
    Mutant(
        "a line covers both turns of a second", "pipelines/device/readers/hyperhive/runtime.py",
        "                    shared.append((at, within))\n", "                    self._covered.update(within)\n",
        "tests/device/test_hyperhive.py::test_a_line_in_the_second_that_two_turns_share_covers_one",
    ),
    Mutant(
        "a manifest claims what it likes", "pipelines/warehouse/landing.py", "0 <= value <= most\n", "0 <= value\n",
        f"{LANDING}::test_a_claim_that_no_object_can_keep",
    ),
    Mutant(
        "a value that does not fit stops its group", "pipelines/warehouse/load.py", "    except UNFIT:\n",
        "    except ZeroDivisionError:\n", f"{LOAD}::test_a_batch_that_does_not_fit_the_warehouse_is_refused_alone",
    ),
    Mutant(
        "claims that nobody proved are summed", "models/core/internal/int_delivery__device_days.sql",
        "            when objects.input_tokens_claimed + objects.output_tokens_claimed > {{ var('max_unproved_tokens') }}\n",
        "            when false\n",
        "tests/dbt/test_delivery.py::test_what_refused_batches_claim_breaks_no_sum",
    ),
    Mutant(
        "a step is dated before there were days", "dbt_project/macros/possible_micros.sql", "between 0 and",
        "between -70000000000000000 and",
        "tests/dbt/test_held.py::test_latencies_that_lead_out_of_the_calendar_date_no_step",
    ),
)  # fmt: skip
