"""Keys: shown once, kept as hashes in a private file, each opens one tenant."""

import json
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.commands.reading import is_loopback
from pipelines.errors import UsageError
from pipelines.home import Home
from pipelines.serve import keys


def test_a_key_opens_its_tenant_until_it_is_revoked(tmp_path: Path) -> None:
    home = Home(tmp_path)
    (name, ada), (_, bob) = keys.make(home, "acme"), keys.make(home, "bolt")
    assert (keys.tenant_of(home, ada), keys.tenant_of(home, bob)) == ("acme", "bolt")
    assert [keys.tenant_of(home, key) for key in ("", ada[:-1], ada + "x", name, "\ud800")] == [None] * 5
    keys.revoke(home, name)
    assert (keys.tenant_of(home, ada), keys.tenant_of(home, bob)) == (None, "bolt")
    with pytest.raises(UsageError, match="there is no key"):
        keys.revoke(home, name)
    with pytest.raises(UsageError, match="no tenant"):
        keys.make(home, "Acme Inc.")


def test_only_hashes_are_kept_and_only_the_owner_reads_them(tmp_path: Path) -> None:
    home = Home(tmp_path)
    made = [keys.make(home, "acme")[1] for _ in range(20)]
    assert len(set(made)) == 20
    assert all(len(key) >= 40 for key in made)
    text = home.api_keys.read_text()
    assert not any(key in text or key.removeprefix(keys.PREFIX) in text for key in made)
    assert [set(entry) for entry in json.loads(text)] == [{"name", "tenant", "sha256"}] * 20
    assert home.api_keys.stat().st_mode & 0o777 == 0o600
    assert home.api_keys.parent.stat().st_mode & 0o777 == 0o700


def test_the_command_makes_and_revokes(
    tmp_path: Path, published_home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APIARY_HOME", str(tmp_path))
    assert cli.main(["serve", "--make-key", "tree"]) == 1
    assert "run `apiary run` first" in capsys.readouterr().err
    (tmp_path / "published").symlink_to(published_home.published)
    assert cli.main(["serve", "--make-key", "trees"]) == 2
    assert capsys.readouterr().err == "apiary: nothing is published of tenant 'trees'; there are: bolt, tree\n"
    assert not Home(tmp_path).api_keys.exists()
    assert cli.main(["serve", "--make-metrics-key"]) == 0
    metrics = capsys.readouterr().out.strip()
    assert keys.opens_metrics(Home(tmp_path), metrics)
    assert keys.tenant_of(Home(tmp_path), metrics) is None
    assert cli.main(["serve", "--make-key", "tree"]) == 0
    said = capsys.readouterr()
    assert keys.tenant_of(Home(tmp_path), said.out.strip()) == "tree"
    assert said.out.strip() not in said.err, "the key alone is on standard output"
    assert cli.main(["serve", "--revoke-key", said.err.split()[0]]) == 0
    assert keys.tenant_of(Home(tmp_path), said.out.strip()) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org", "127.0.0.1.example.org", ""])
def test_it_binds_to_loopback_unless_told_otherwise(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert not is_loopback(host)
    assert cli.main(["serve", "--host", host]) == 2
    assert "--beyond-loopback" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.9.10"])
def test_loopback_is_loopback(host: str) -> None:
    assert is_loopback(host)
