"""``guts install`` and ``uninstall`` in a home of their own, judged by git, the shells, groff and man themselves."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from guts.cli.completing import LIVE_TIMEOUT, SHELLS, script
from guts.cli.man_pages import EXIT_STATUSES, pages
from guts.cli.root import COMMANDS, INTERRUPTED, root
from guts.errors import ExitStatus
from tests.support.repositories import git
from tests.support.scripted_control import NODE, ScriptedControl
from tests.unit.cli.conftest import Guts

BASH_COMPLETION = Path("/usr/share/bash-completion/bash_completion")

COMPLETE_IN_BASH = r"""
. "$1"; line=$2
read -ra COMP_WORDS <<<"$line"; [[ $line == *' ' ]] && COMP_WORDS+=("")
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )); COMP_LINE=$line; COMP_POINT=${#line}
compopt() { :; }  # works only where a person types
function=$(complete -p guts | sed -n 's/.*-F \([^ ]*\).*/\1/p')
"$function" guts
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's home folder, and a PATH with git, both commands of Guts, and little else."""
    home, programs = tmp_path / "user", tmp_path / "programs"
    home.mkdir()
    programs.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL", "BASH_COMPLETION_USER_DIR", "MANPATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SHELL", "/bin/bash")
    program(programs / "guts", f'exec {sys.executable} -m guts "$@"')
    program(programs / "git-remote-guts", f'echo "$2" >> {tmp_path}/called')
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return home


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def config(key: str) -> list[str]:
    done = subprocess.run(["git", "config", "--global", "--get-all", key], capture_output=True, text=True, check=False)
    return done.stdout.split()


def test_install_git_writes_the_three_settings_once(guts: Guts, user: Path) -> None:
    first = guts("install", "git")
    text = (user / ".gitconfig").read_text()
    again = guts("install", "git")

    assert (first.status, again.status) == (0, 0)
    assert first.out.count("set ") == 3
    assert str(user / ".gitconfig") in first.out
    assert "nothing to do" in again.out
    assert (user / ".gitconfig").read_text() == text
    assert config("url.guts://.insteadOf") == ["guts:", "guts://"]
    assert config("protocol.guts.allow") == ["always"]


def test_git_takes_both_forms_of_a_url_to_the_helper(guts: Guts, user: Path, tmp_path: Path) -> None:
    assert guts("install", "git").status == 0
    for url in ("guts:repo1x/tool", "guts://repo1x/tool", "guts://[::1]:9000/repo1x"):
        subprocess.run(["git", "ls-remote", url], capture_output=True, check=False)

    called = (tmp_path / "called").read_text().split()
    assert called == ["guts://repo1x/tool", "guts://repo1x/tool", "guts://[::1]:9000/repo1x"]


def test_git_takes_submodules_to_the_helper(guts: Guts, user: Path, tmp_path: Path, work: Path) -> None:
    (work / ".gitmodules").write_text('[submodule "part"]\n\tpath = part\n\turl = guts://repo1x/part\n')
    git(work, "update-index", "--add", "--cacheinfo", f"160000,{git(work, 'rev-parse', 'HEAD')},part")
    command = ["git", "-C", str(work), "submodule", "update", "--init"]
    before = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "'guts' not allowed" in before.stderr

    assert guts("install", "git").status == 0
    subprocess.run(command, capture_output=True, check=False)
    assert "guts://repo1x/part" in (tmp_path / "called").read_text()


def test_uninstall_git_removes_exactly_what_install_wrote(guts: Guts, user: Path) -> None:
    for key, value in (
        ("user.name", "Ada"),
        ("url.guts://.insteadOf", "mine:"),
        ("url.ssh://host/.insteadOf", "guts-host:"),
    ):
        subprocess.run(["git", "config", "--global", "--add", key, value], check=True)
    before = (user / ".gitconfig").read_text()
    assert guts("install", "git").status == 0
    assert guts("uninstall", "git", "--dry-run").out.count("would remove") == 3
    ran = guts("uninstall", "git", "--json")

    assert ran.json == {
        "settings": [
            {"key": "url.guts://.insteadOf", "value": "guts:"},
            {"key": "url.guts://.insteadOf", "value": "guts://"},
            {"key": "protocol.guts.allow", "value": "always"},
        ],
        "dry_run": False,
    }
    assert (user / ".gitconfig").read_text() == before
    assert "nothing to do" in guts("uninstall", "git").out


def test_install_git_writes_nothing_when_it_only_says_what_it_would_do(guts: Guts, user: Path) -> None:
    ran = guts("install", "git", "--dry-run")

    assert ran.status == 0
    assert ran.out.count("would set") == 3
    assert not (user / ".gitconfig").exists()


def test_install_git_takes_the_place_of_a_policy_that_forbids_submodules(guts: Guts, user: Path) -> None:
    for value in ("always", "never"):
        subprocess.run(["git", "config", "--global", "--add", "protocol.guts.allow", value], check=True)
    assert guts("install", "git").status == 0
    assert config("protocol.guts.allow") == ["always"]


def test_helper_that_git_cannot_find_is_named_with_the_line_that_mends_it(
    guts: Guts, user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    os.symlink(shutil.which("git") or "", scripts / "git")
    monkeypatch.setenv("PATH", str(scripts))
    monkeypatch.setattr("sysconfig.get_path", lambda *_: str(tmp_path / "programs"))
    ran = guts("install", "git", "--json")

    assert ran.status == ExitStatus.USAGE
    assert ran.error["code"] == "HELPER_NOT_FOUND"
    hint = str(ran.error["hint"])
    assert hint.startswith("add this line to ~/.profile: export PATH=")
    line = hint.partition(": ")[2]
    found = subprocess.run(["/bin/sh", "-c", f"{line}; command -v git-remote-guts"], capture_output=True, check=True)
    assert found.stdout.decode().strip() == str(tmp_path / "programs" / "git-remote-guts")
    assert not (user / ".gitconfig").exists()

    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert guts("install", "git", "--json").error["hint"] == f"fish_add_path '{tmp_path}/programs'"


def test_helper_that_is_nowhere_is_said_to_be_missing(
    guts: Guts, user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "programs/git-remote-guts").unlink()
    monkeypatch.setattr("sysconfig.get_path", lambda *_: str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    os.symlink(shutil.which("git") or "", tmp_path / "programs/git")
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    assert guts("install", "git", "--json").error["code"] == "HELPER_NOT_FOUND"


def test_git_that_is_too_old_is_refused(guts: Guts, user: Path, tmp_path: Path) -> None:
    program(tmp_path / "programs/git", "echo git version 2.33.9")
    assert guts("install", "git", "--json").error["code"] == "GIT_MISSING"
    assert not (user / ".gitconfig").exists()


PLACES = {
    "bash": ".local/share/bash-completion/completions/guts",
    "zsh": ".local/share/zsh/site-functions/_guts",
    "fish": ".config/fish/completions/guts.fish",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_is_put_where_the_shell_looks_and_taken_away_again(guts: Guts, user: Path, shell: str) -> None:
    place = user / PLACES[shell]
    assert guts("install", "completion", shell, "--dry-run").out == f"would write {place}\n"
    assert not place.exists()

    assert guts("install", "completion", shell).out == f"wrote {place}\n"
    assert place.read_text() == script(shell) == guts("completion", shell).out
    assert place.stat().st_mode & 0o777 == 0o644
    assert "nothing to do" in guts("install", "completion", shell).out
    assert guts("uninstall", "completion").out == f"removed {place}\n"
    assert not place.exists()
    assert "nothing to do" in guts("uninstall", "completion", shell).out


def test_completion_goes_to_the_folders_that_the_environment_names(
    guts: Guts, user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for shell in SHELLS:
        guts("install", "completion", shell)
    monkeypatch.setenv("BASH_COMPLETION_USER_DIR", str(tmp_path / "bash"))
    guts("install", "completion")

    for place in (
        "data/bash-completion/completions/guts",
        "data/zsh/site-functions/_guts",
        "config/fish/completions/guts.fish",
        "bash/completions/guts",
    ):
        assert (tmp_path / place).is_file(), place
    assert list(user.iterdir()) == []


def test_file_of_somebody_else_is_neither_replaced_nor_removed(guts: Guts, user: Path) -> None:
    place = user / PLACES["fish"]
    place.parent.mkdir(parents=True)
    place.write_text("complete -c guts\n")

    ran = guts("install", "completion", "fish", "--json")
    assert (ran.status, ran.error["code"]) == (ExitStatus.REFUSED, "FOREIGN_FILE")
    assert "nothing to do" in guts("uninstall", "completion").out
    assert place.read_text() == "complete -c guts\n"


@pytest.mark.parametrize("what", ["mentions", "mentions later", "link", "dangling", "pipe", "folder", "link to ours"])
def test_what_only_looks_like_ours_stays(guts: Guts, user: Path, what: str) -> None:
    place, precious = user / PLACES["fish"], user / "precious"
    place.parent.mkdir(parents=True)
    precious.write_text("about what is made by guts install\n" if what != "link to ours" else script("fish"))
    match what:
        case "mentions":
            place.write_text("# my own, better than what is made by guts install completion\n")
        case "mentions later":
            place.write_text("# mine\n# made by guts install completion\n")
        case "link" | "link to ours":
            place.symlink_to(precious)
        case "dangling":
            place.symlink_to(user / "nowhere")
        case "pipe":
            os.mkfifo(place)
        case "folder":
            place.mkdir()
    before, text = place.lstat(), precious.read_text()

    ran = guts("install", "completion", "fish", "--json")
    assert (ran.status, ran.error["code"]) == (ExitStatus.REFUSED, "FOREIGN_FILE")
    assert "nothing to do" in guts("uninstall", "completion").out
    after = place.lstat()
    assert (after.st_ino, after.st_mode, precious.read_text()) == (before.st_ino, before.st_mode, text)


@pytest.mark.parametrize("shell", SHELLS)
def test_mark_is_at_the_beginning_of_all_that_is_installed(shell: str) -> None:
    lines = script(shell).splitlines()
    assert lines.index("# made by guts install completion") == (1 if shell == "zsh" else 0)
    assert all(text.startswith('.\\" made by guts install man\n') for text in pages().values())


def test_shell_is_the_users_own_unless_it_is_named(guts: Guts, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/zsh")
    assert guts("completion").out.startswith("#compdef guts")
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    ran = guts("completion")
    assert ran.status == ExitStatus.USAGE
    assert "which shell? One of bash, zsh, fish" in ran.err


def in_bash(user: Path, line: str) -> list[str]:
    """Return what bash offers at the end of ``line``."""
    done = subprocess.run(
        ["bash", "-c", COMPLETE_IN_BASH, "bash", str(user / PLACES["bash"]), line],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_options_and_live_ids(
    guts: Guts, control: ScriptedControl, user: Path, repository: str
) -> None:
    guts("install", "completion", "bash")

    assert in_bash(user, "guts in") == ["inspect", "install"]
    assert in_bash(user, "guts uninstall ") == ["completion", "git", "man"]
    assert in_bash(user, "guts install completion ") == ["bash", "zsh", "fish"]
    assert "--description" in in_bash(user, "guts publish --")
    assert in_bash(user, "guts seed repo1") == [repository]
    assert in_bash(user, "guts maintainers ls re") == [repository]
    assert in_bash(user, "guts seed repo1zzzz") == []
    assert in_bash(user, "guts peer connect node1") == [f"{NODE}@127.0.0.1:9001"]
    assert set(in_bash(user, "guts peer show node1")) == set(in_bash(user, "guts peer ban node1")) == {NODE}
    control.banned = [{"subject": "192.0.2.0/24", "kind": "banned by the operator", "reason": "spam"}]
    assert in_bash(user, "guts peer unban 19") == ["192.0.2.0/24"]


def test_bash_loads_the_installed_completion_by_itself(guts: Guts, user: Path) -> None:
    if not BASH_COMPLETION.exists():
        pytest.skip("the package bash-completion is not here")
    guts("install", "completion", "bash")
    loads = f". {BASH_COMPLETION}; _completion_loader guts; complete -p guts"
    done = subprocess.run(["bash", "-c", loads], capture_output=True, text=True, check=True)
    assert done.stdout == "complete -o nosort -F _guts_completion guts\n"


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not here")
def test_zsh_takes_the_installed_completion(guts: Guts, user: Path) -> None:
    guts("install", "completion", "zsh")
    place = user / PLACES["zsh"]
    subprocess.run(["zsh", "-n", str(place)], check=True)
    loads = f"fpath=({place.parent} $fpath); autoload -Uz compinit && compinit -u -D; print $_comps[guts]"
    done = subprocess.run(["zsh", "-f", "-c", loads], capture_output=True, text=True, check=True)
    assert done.stdout == "_guts\n"


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not here")
def test_fish_takes_the_installed_completion(guts: Guts, user: Path) -> None:
    guts("install", "completion", "fish")
    done = subprocess.run(["fish", "-c", "complete -C 'guts ins'"], capture_output=True, text=True, check=True)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["inspect", "install"]


def offered(*words: str) -> set[str]:
    *before, incomplete = words
    items = ShellComplete(root, {}, "guts", "_GUTS_COMPLETE").get_completions(before, incomplete)
    return {str(item.value) for item in items if item.type == "plain"}


def test_ids_come_from_the_node_that_the_command_line_names(
    guts: Guts, control: ScriptedControl, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUTS_HOME", str(guts.home / "nowhere"))
    assert offered("inspect", "repo1") == set()
    assert offered("--home", str(guts.home), "inspect", "repo1") == {repository}


def test_node_that_does_not_answer_keeps_nobody_waiting(guts: Guts) -> None:
    guts.paths.runtime.mkdir(parents=True, mode=0o700)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(guts.paths.control_socket))
        silent.listen()
        begun = time.monotonic()
        assert offered("seed", "repo1") == set()
        waited = time.monotonic() - begun
    assert LIVE_TIMEOUT <= waited < LIVE_TIMEOUT + 0.5


@pytest.mark.parametrize("words", [("inst",), ("--h",)])
def test_completion_of_a_command_imports_none(words: tuple[str, ...]) -> None:
    code = (
        "import sys; from click.shell_completion import ShellComplete; from guts.cli.root import root; "
        "ShellComplete(root, {}, 'guts', 'X').get_completions([], sys.argv[1]); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert not {target.partition(":")[0] for target, _ in COMMANDS.values()} & set(done.stdout.split())


def test_every_command_has_a_man_page(guts: Guts, user: Path) -> None:
    folder = user / ".local/share/man/man1"
    assert guts("install", "man", "--dry-run").out.count("would write") == len(COMMANDS) + 2
    assert not folder.exists()
    guts("install", "man")

    assert {path.name for path in folder.iterdir()} == (
        {"guts.1", "git-remote-guts.1"} | {f"guts-{name}.1" for name in COMMANDS}
    )
    assert "nothing to do" in guts("install", "man").out
    (folder / "guts-gone.1").write_text((folder / "guts-ls.1").read_text())  # of an older version
    (folder / "guts-tools.1").write_text(".TH GUTS-TOOLS 1\n")
    assert guts("uninstall", "man").out.count("removed") == len(COMMANDS) + 3
    assert [path.name for path in folder.iterdir()] == ["guts-tools.1"]


def test_man_page_tells_what_help_tells(guts: Guts) -> None:
    made = pages()
    for name in COMMANDS:
        page = made[f"guts-{name}.1"].replace(r"\-", "-")
        assert page.index(".SH NAME") < page.index(".SH SYNOPSIS") < page.index(".SH DESCRIPTION")
        for option in re.findall(r"--[a-z-]+", guts(name, "--help").out):
            assert option in page, (name, option)
    assert all(rf".BR guts\-{name} (1)" in made["guts.1"] for name in COMMANDS)


def test_man_page_lists_every_exit_status() -> None:
    assert {status for status, _ in EXIT_STATUSES} == {*map(int, ExitStatus), INTERRUPTED}


def test_man_pages_are_plain_ascii_without_stray_requests() -> None:
    requests = {".TH", ".SH", ".SS", ".TP", ".PP", ".BR", ".br", ".nf", ".fi", '.\\"'}
    for name, page in pages().items():
        assert page.isascii(), name
        assert {line.split()[0] for line in page.splitlines() if line.startswith((".", "'"))} <= requests, name


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not here")
def test_groff_has_no_warning_about_a_man_page(tmp_path: Path) -> None:
    for name, page in pages().items():
        command = ["groff", "-man", "-ww", "-z", "-Tutf8"]
        done = subprocess.run(command, input=page, capture_output=True, text=True, check=True)
        assert done.stderr == "", name


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not here")
def test_man_shows_an_installed_page(guts: Guts, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = guts("install", "man")
    folder = user / ".local/share/man"
    assert ran.err == (
        f"hint: man does not look there yet; add this line to ~/.profile: export MANPATH={folder}:$MANPATH\n"
    )
    monkeypatch.setenv("MANPATH", f"{folder}:")
    assert guts("install", "man").err == ""
    done = subprocess.run(["man", "-P", "cat", "guts-publish"], capture_output=True, text=True, check=True)
    assert "guts publish [OPTIONS] [DIRECTORY]" in done.stdout
