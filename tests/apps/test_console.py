"""What every app does at its edges."""

import argparse
import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from apps.console import Once, complain, finish, json_line, positive, printable, width


class Output(io.StringIO):
    """Standard output that counts how often it is flushed, and may be gone."""

    def __init__(self, gone):
        super().__init__()
        self.gone, self.flushed = gone, 0

    def flush(self):
        self.flushed += 1
        if self.gone:
            raise BrokenPipeError


def test_no_file_gets_the_number_of_a_standard_error_that_is_closed():
    code = (
        "import os, sys; from apps.console import finish; "
        "sys.exit(finish(lambda: print(os.open(os.devnull, os.O_RDONLY)) or 0))"
    )
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=Path(__file__).resolve().parents[2], stdout=subprocess.PIPE, timeout=300)
    assert done.returncode == 0 and int(done.stdout) > 2


@pytest.mark.parametrize("gone", [False, True])
def test_an_interrupted_app_writes_the_answers_that_it_has(monkeypatch, gone):
    output = Output(gone)
    monkeypatch.setattr("sys.stdout", output)

    def main():
        print("an answer")
        raise KeyboardInterrupt

    assert finish(main) == 130 and output.flushed == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_app_that_is_asked_to_end_removes_what_is_half_written(number, monkeypatch):
    def main():
        try:
            signal.raise_signal(number)
        finally:
            cleaned.append(number)

    cleaned: list[int] = []
    monkeypatch.setattr("sys.stdout", Output(False))
    before = signal.signal(number, signal.SIG_DFL)
    try:
        assert (finish(main), cleaned) == (128 + number, [number])
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_answers_go_on_where_complaints_cannot_be_written(monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    output = Output(False)
    monkeypatch.setattr("sys.stdout", output)
    monkeypatch.setattr("sys.stderr", Full())
    assert finish(lambda: complain("line 3: an empty text") or print("positive") or 1) == 1
    assert output.getvalue() == "positive\n"


def test_signs_of_all_languages_are_shown_and_what_steers_a_terminal_is_not():
    for text in (
        "Génial\u00a0!",
        "很\u3000好",
        "👨\u200d👩\u200d👧",
        "می\u200cخواهم",
        "3.45.00\u202fPM.png",
        "\U0001fae8",
    ):
        assert printable(text) == text
    assert printable("a\x1b[2J\u202eb\u2028\x9b\udcff") == "a\\x1b[2J\\u202eb\\u2028\\x9b\\udcff"


@pytest.mark.parametrize("app", ["image_classification", "sentiment", "translation"])
def test_help_is_written_in_any_encoding(app):
    command = [sys.executable, "-m", f"apps.{app}", "--help"]
    where = {"cwd": Path(__file__).resolve().parents[2], "stderr": subprocess.PIPE, "text": True, "timeout": 300}
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, **where, env=environment, stdout=subprocess.PIPE)
    assert done.returncode == 0 and "usage" in done.stdout and not done.stderr


def test_what_help_has_written_is_flushed_before_the_end(monkeypatch):
    output = Output(gone=True)
    monkeypatch.setattr("sys.stdout", output)
    monkeypatch.setattr("apps.console._drop_output", lambda: None)
    assert finish(lambda: argparse.ArgumentParser().parse_args(["--help"])) == 141 and output.flushed == 1


def test_a_whole_number_is_one_that_a_computer_counts_to():
    assert positive("32") == 32
    for text in ("0", "-1", "²", "1.5", "9" * 20):
        with pytest.raises(argparse.ArgumentTypeError, match=r"whole number|too large"):
            positive(text)


def test_marks_above_and_below_letters_take_no_column():
    assert [width(text) for text in ("กิน", "हिंदी", "e\u0301", "می\u200cروم", "好a")] == [2, 4, 1, 5, 3]


def test_json_keeps_signs_that_turn_the_line_around_as_escapes():
    assert json_line("a\u202eb") == '"a\\u202eb"'


def test_an_option_that_is_said_twice_is_refused(capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", action=Once)
    assert parser.parse_args(["--file", "a"]).file == "a"
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--file", "a", "--file", "b"])
    assert "--file: said twice" in capsys.readouterr().err
