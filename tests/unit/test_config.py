"""Settings: who wins, what is refused, and that no secret is shown."""

from pathlib import Path

import pytest

from kvmigrate.config import Settings, mask_url, read_settings
from kvmigrate.errors import ConfigError

ENVIRONMENT = {"KVMIGRATE_SOURCE": "redis://environment/0", "KVMIGRATE_TARGET": "postgresql://environment/db"}


def write(folder: Path, text: str, name: str = "kvmigrate.toml") -> Path:
    """Write a file of settings."""
    file = folder / name
    file.write_text(text)
    return file


def test_an_option_wins_over_environment_and_file(tmp_path: Path) -> None:
    """Each setting comes from the first place that has it, and says from which."""
    write(tmp_path, 'source = "redis://file/0"\ntarget = "postgresql://file/db"\nmapping = "shop.yaml"\n')

    found = read_settings({"source": "redis://option/0"}, environment=ENVIRONMENT, folder=tmp_path)

    assert "redis://option/0" == found.source
    assert "postgresql://environment/db" == found.target
    assert tmp_path / "shop.yaml" == found.mapping
    assert {
        "source": "--source",
        "target": "KVMIGRATE_TARGET",
        "mapping": str(tmp_path / "kvmigrate.toml"),
    } == dict(found.came_from)


def test_replicas_are_a_number_from_any_place(tmp_path: Path) -> None:
    """A zero that is typed counts, too; whatever is no number is told with its place."""
    write(tmp_path, "wait_replicas = 2\n")
    one = {"KVMIGRATE_WAIT_REPLICAS": "1"}

    assert 0 == read_settings(environment={}, folder=tmp_path / "elsewhere").wait_replicas
    assert 2 == read_settings(environment={}, folder=tmp_path).wait_replicas
    assert 1 == read_settings(environment=one, folder=tmp_path).wait_replicas
    found = read_settings({"wait_replicas": 0}, environment=one, folder=tmp_path)
    assert (0, "--wait-replicas") == (found.wait_replicas, found.came_from["wait_replicas"])
    with pytest.raises(ConfigError, match="KVMIGRATE_WAIT_REPLICAS: 'one' is no number"):
        read_settings(environment={"KVMIGRATE_WAIT_REPLICAS": "one"}, folder=tmp_path)


def test_an_empty_option_or_variable_is_none(tmp_path: Path) -> None:
    """A shell's empty variable does not hide the file."""
    write(tmp_path, 'source = "redis://file/0"\n')

    found = read_settings({"source": None}, environment={"KVMIGRATE_SOURCE": ""}, folder=tmp_path)

    assert "redis://file/0" == found.source


def test_a_mapping_in_the_folder_is_found(tmp_path: Path) -> None:
    """Without any word on it, mapping.yaml of the current folder is the mapping."""
    assert read_settings(environment={}, folder=tmp_path).mapping is None
    write(tmp_path, "", name="mapping.yaml")

    assert tmp_path / "mapping.yaml" == read_settings(environment={}, folder=tmp_path).mapping


def test_a_named_file_gives_paths_relative_to_itself(tmp_path: Path) -> None:
    """A mapping named in a file stands beside that file, wherever the command is typed."""
    folder = tmp_path / "deploy"
    folder.mkdir()
    file = write(folder, 'mapping = "shop.yaml"\n', name="production.toml")

    assert folder / "shop.yaml" == read_settings(config=file, environment={}, folder=tmp_path).mapping


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ('sorce = "redis://x/0"\n', "unknown key 'sorce'", "did you mean 'source'?"),
        ("[zzz]\n", "unknown key 'zzz'", "the keys are source, target, mapping, wait_replicas"),
        ("source = 5\n", "source must be a text", 'source = "..."'),
        ('source = ""\n', "source must be a text", 'source = "..."'),
        ("wait_replicas = -1\n", "wait_replicas must be a number from 0", "wait_replicas = 1"),
        ("wait_replicas = true\n", "wait_replicas must be a number from 0", "wait_replicas = 1"),
        ("source = redis://:hush@x/0\n", "not TOML", "a line looks like"),
    ],
)
def test_what_is_wrong_in_the_file_is_told(tmp_path: Path, text: str, said: str, hint: str) -> None:
    """A file with an unknown key, a wrong type or no TOML is an error with a way out, and repeats no value."""
    write(tmp_path, text)

    with pytest.raises(ConfigError, match=said) as caught:
        read_settings(environment={}, folder=tmp_path)

    assert hint in caught.value.hint
    assert "hush" not in str(caught.value)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    """A missing kvmigrate.toml is nothing special, a missing --config is an error."""
    read_settings(environment={}, folder=tmp_path)

    with pytest.raises(ConfigError, match="no file"):
        read_settings(config=tmp_path / "other.toml", environment={}, folder=tmp_path)


def test_a_folder_is_no_file_of_settings(tmp_path: Path) -> None:
    """What cannot be read is an error of the house."""
    with pytest.raises(ConfigError, match="cannot read"):
        read_settings(config=tmp_path, environment={}, folder=tmp_path)


@pytest.mark.parametrize("name", ["source", "target", "mapping"])
def test_a_missing_setting_says_how_to_give_it(name: str) -> None:
    """The error names option, variable and file."""
    with pytest.raises(ConfigError, match=f"no {name}") as caught:
        getattr(Settings(), f"need_{name}")()

    assert {f"--{name}", f"KVMIGRATE_{name.upper()}", "kvmigrate.toml"} <= set(
        caught.value.hint.replace(",", "").split()
    )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("", ""),
        ("redis://:hush@cache:6379/0", "redis://cache:6379/0"),
        ("redis://hush@cache:6379/0", "redis://cache:6379/0"),
        ("postgresql://me:hush@db/shop?sslmode=require&password=hush", "postgresql://db/shop?sslmode=require"),
        ("postgresql://db/shop?table=kv_store_a&key_column=k", "postgresql://db/shop?table=kv_store_a&key_column=k"),
        ("redis://:hu#sh@cache/0", "***"),
        ("redis://:hush/hush@cache/0", "***"),
        ("host=db password=hush", "***"),
        ("hush", "***"),
        ("http://[hush", "***"),
    ],
)
def test_a_masked_url_has_no_secret(url: str, shown: str) -> None:
    """User, password and unknown options are gone; what cannot be read is not shown at all."""
    assert shown == mask_url(url)


def test_settings_show_no_secret() -> None:
    """Neither repr nor str of the settings holds a password."""
    found = Settings("redis://:hush@cache/0", "host=db password=hush", Path("m.yaml"))

    assert "hush" not in f"{found!r} {found}"
    assert "redis://cache/0" in repr(found)
