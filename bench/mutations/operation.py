"""Mutants of operation: runs with nothing new, sensors, retries, alerts, dead runs, backups, publications."""

from bench.mutations.mutant import Mutant

LAST_RUN = "tests/defs/test_last_run.py"
CHANGES = f"{LAST_RUN}::test_every_kind_of_change_is_seen"
ARRIVALS = "tests/defs/test_automation.py::test_the_sensor_asks_for_one_run_of_all_that_is_new_and_is_quiet_otherwise"
RETRIES = "tests/defs/test_automation.py::test_a_step_whose_store_is_away_is_tried_again_and_no_other"
DAYS = "tests/defs/test_automation.py::test_each_partition_says_what_arrived_on_its_days"
TOLD = "tests/defs/test_operation_alerts.py::test_each_kind_is_told_once_with_what_to_do_and_a_link_and_so_is_its_end"
ORPHANS = "tests/defs/test_orphaned_runs.py"
BACKUP = "tests/warehouse_part/test_backup.py"
PUBLISH = "tests/warehouse_part/test_publish.py"

OPERATION = (
    Mutant("last run: objects that arrived are not seen", "pipelines/defs/last_run.py", '            add("object", entry.key, entry.size, entry.received_at)\n', "            pass\n", CHANGES),
    Mutant("last run: a changed code is not seen", "pipelines/defs/last_run.py", "for path in (*_code(), *signed,", "for path in (*signed,", CHANGES),
    Mutant("last run: a changed result is not seen", "pipelines/defs/last_run.py", ' or said.get("results") != _results(home)', "", CHANGES),
    Mutant("last run: an undelivered message waits", "pipelines/defs/last_run.py", " or alert_messages.undelivered(home.exports)", "", f"{LAST_RUN}::test_a_message_that_no_channel_has_heard_is_tried_again"),
    Mutant("last run: yesterday's run is today's", "pipelines/defs/last_run.py", '    add("day", today.astimezone(UTC).date())\n', "", f"{LAST_RUN}::test_the_clock_is_seen_by_the_day"),
    Mutant("arrivals: a batch copied in is not seen", "pipelines/defs/arrival_sensor.py", 'is_older_new = len(found) - len(later) > seen["count"]', "is_older_new = False", ARRIVALS),
    Mutant("arrivals: a run is asked for beside another", "pipelines/defs/arrival_sensor.py", "if context.instance.get_runs(dg.RunsFilter(job_name=daily.name, statuses=AHEAD), limit=1):", "if False:", ARRIVALS),
    Mutant("retries: every time at once", "pipelines/defs/retries.py", "FIRST_SECONDS * 2**context.retry_number", "FIRST_SECONDS * 0", RETRIES),
    Mutant("retries: of every error", "pipelines/defs/retries.py", "except StoreUnavailableError as error:\n        seconds", "except Exception as error:\n        error = StoreUnavailableError(str(error))\n        seconds", RETRIES),
    Mutant("partitions: every day says all", "pipelines/defs/wire.py", "of_partition[nearest(day, today=today).isoformat()].update(counts)", "of_partition[max(of_partition)].update(counts)", DAYS),
    Mutant("alerts: a failed run is not told", "pipelines/defs/operation_alerts.py", "if run.status is dg.DagsterRunStatus.FAILURE:", "if run.status is dg.DagsterRunStatus.CANCELED:", TOLD),
    Mutant("alerts: stale marts are fresh", "pipelines/defs/operation_alerts.py", "if now - at > FRESHNESS.fail_window.to_timedelta():", "if now < at:", TOLD),
    Mutant("dead runs: one without a process is at work", "pipelines/defs/orphaned_runs.py", "if started is None or time.time() - started < UNTAGGED_SECONDS:", "if True:", f"{ORPHANS}::test_a_dead_holder_of_every_kind_is_ended"),
    Mutant("dead runs: its end is told by us", "pipelines/defs/orphaned_runs.py", "if now is not None and not now.is_finished:", "if now is not None:", f"{ORPHANS}::test_a_run_that_said_that_it_ended_keeps_its_end"),
    Mutant("backup: a hash is not compared", "pipelines/warehouse/backup.py", 'else _digest(path) == entry["sha256"]', "else True", f"{BACKUP}::test_a_damaged_backup_restores_nothing"),
    Mutant("backup: erasures are not repeated", "pipelines/warehouse/backup.py", "reopened = suppression.reopen(store, finished_since=made_at - CLOCKS_APART)", "reopened = 0", f"{BACKUP}::test_erasures_that_were_finished_after_it_was_made_are_opened_again"),
    Mutant("backup: a store that is there is replaced", "pipelines/warehouse/backup.py", "keeps_store = any((home.root / KEPT_STORE).rglob(\"*\"))", "keeps_store = False", f"{BACKUP}::test_nothing_is_overwritten_and_a_store_that_is_there_stays"),
    Mutant("publication: a changed mart is linked", "pipelines/warehouse/publish.py", "if before.prints.get(mart) == found}", "if mart in before.prints}", f"{PUBLISH}::test_every_change_of_a_mart_is_published"),
    Mutant("exports: a changed day is not read", "pipelines/billing/exports.py", "(last.manifest_sha256, self.fingerprint(period, day))\n        if is_same:", "self.before.get((period, day))\n        if is_same:", "tests/billing/test_statements.py::test_an_unchanged_day_is_not_read_again"),
    Mutant("isolation: without tries everybody pays", "pipelines/warehouse/isolation.py", "    except _NoTriesLeftError:\n        pass\n", "    except _NoTriesLeftError:\n        found = [batch.key for batch in batches]\n", "tests/warehouse_part/test_isolation.py::test_no_honest_tenant_pays_for_another_however_many_are_poisoned"),
    Mutant("a step that failed holds the warehouse", "pipelines/defs/resources.py", "super().get_connection() as connection, connection:", "super().get_connection() as connection:", "tests/warehouse_part/test_database.py"),
    Mutant("a sum of all tenants is a column's", "pipelines/warehouse/arrivals.py", "sum({name}) AS", "sum({name})::BIGINT AS", "tests/warehouse_part/test_arrivals.py"),
    Mutant("agents: a run ends a moment late", "dbt_project/macros/latest_run_at.sql", "ranges.end_position // widths.width as end_block", "(ranges.end_position + 1) // widths.width as end_block", "tests/dbt/test_runs.py"),
    Mutant("agents: of two runs the first in the alphabet", "dbt_project/macros/latest_run_at.sql", "latest('run_key', pair('started_at', 'run_key'))", "latest('run_key', 'run_key')", "tests/dbt/test_runs.py"),
    Mutant("agents: blocks at a range's start are left out", "dbt_project/macros/latest_run_at.sql", "where first_block < end_block and first_block % 2 = 1", "where first_block < end_block and first_block % 2 = 2", "tests/dbt/test_runs.py"),
)  # fmt: skip
