"""Texts are read from files and pipes alike, and answers replace a file whole or not at all."""

import contextlib
import csv
import errno
import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from apps.outputs import replaced, written
from apps.reviews import Review, ReviewError, Table, lines_of, objects_of, standard_input
from apps.table_rows import has_escapes, has_quotes, has_spaced_quotes, regular_delimiter
from bigkeras.data import rows as rows_module
from bigkeras.data.encoding import says_nothing

TEXT = "".join(f"line {i}\n" for i in range(20_000))


def texts(path, encoding=None):
    with contextlib.ExitStack() as files:
        return [review.text for review in lines_of(Table.open(str(path), encoding, files), str(path))]


def test_a_pipe_is_read_from_its_beginning():
    reading, writing = os.pipe()

    def write():
        with open(writing, "w") as out:
            out.write(TEXT)

    writer = threading.Thread(target=write)
    writer.start()
    assert texts(f"/dev/fd/{reading}") == TEXT.splitlines()
    writer.join()
    os.close(reading)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_lines_end_where_they_end(tmp_path, encoding):
    (tmp_path / "f.txt").write_bytes("a\rb\r\n\r\r\nc".encode(encoding))
    assert texts(tmp_path / "f.txt") == ["a\rb", "", "c"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_wide_characters_without_a_mark_are_told(tmp_path, encoding):
    (tmp_path / "f.txt").write_bytes("Good morning.\n".encode(encoding))
    with pytest.raises(ReviewError, match=r"f\.txt: not UTF-8 text: --encoding says what it is"):
        texts(tmp_path / "f.txt")
    with pytest.raises(ReviewError, match="standard input: UTF-16 or UTF-32"), open(tmp_path / "f.txt", "rb") as file:
        list(lines_of(file, "standard input"))


@pytest.mark.parametrize("content", ["Où est la gare ?\n", "It’s here.\n"])
def test_a_single_letter_of_another_encoding_is_told(tmp_path, content):
    (tmp_path / "f.txt").write_bytes(content.encode("cp1252"))
    with pytest.raises(ReviewError, match=r"not UTF-8 text: --encoding .* utf-8, if it is that with broken bytes$"):
        texts(tmp_path / "f.txt")
    assert texts(tmp_path / "f.txt", "cp1252") == content.splitlines()
    (broken,) = texts(tmp_path / "f.txt", "utf-8")
    assert "\udc80" <= min(c for c in broken if not c.isascii()) <= "\udcff"


def test_broken_bytes_of_utf_8_pass(tmp_path):
    (tmp_path / "f.txt").write_bytes("Où\n".encode() + b"bro\xf9ken\n")
    assert texts(tmp_path / "f.txt") == ["Où", "bro\udcf9ken"]
    (tmp_path / "f.txt").write_bytes(b"a" * (2**16 - 1) + "é\n".encode())  # in two where the look ends
    assert texts(tmp_path / "f.txt")[0].endswith("aé")


def test_a_link_stays_a_link_and_a_pipe_a_pipe(tmp_path):
    (tmp_path / "kept.txt").write_text("before")
    (tmp_path / "link").symlink_to(tmp_path / "kept.txt")
    with written(str(tmp_path / "link"), plain=False) as out:
        out.write("after")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "kept.txt").read_text() == "after"
    reading, writing = os.pipe()
    with written(f"/dev/fd/{writing}", plain=False) as out:
        out.write("all")
    assert os.read(reading, 9) == b"all"


def test_a_name_may_be_as_long_as_names_can_be(tmp_path):
    path = tmp_path / ("名" * 82 + ".csv")
    with replaced(str(path)) as place:
        place.write_text("all")
    assert path.read_text() == "all"


def test_columns_of_answers_have_names_that_the_table_does_not_have(tmp_path):
    path = tmp_path / "t.csv"
    heads = []
    for head in (
        "text",
        "text,label",
        "text,label,predicted_probability",
        "text,label,predicted_label,predicted_label_2",
    ):
        path.write_text(head + "\n" + ",".join("a" for _ in head.split(",")) + "\n")
        out = io.StringIO()
        with contextlib.ExitStack() as files:
            Table(str(path), None, None, "text", files).writer(out)
        heads.append(out.getvalue().strip().removeprefix(head + ","))
    names = ["", "predicted_", "predicted_", "predicted_"]
    ends = ["", "", "_2", "_3"]
    assert heads == [f"{n}label{e},{n}probability{e}" for n, e in zip(names, ends, strict=True)]


def test_what_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "kept.txt"
    path.write_text("before")
    with pytest.raises(KeyError), replaced(str(path)) as place:
        place.write_text("half")
        raise KeyError
    assert path.read_text() == "before" and [file.name for file in tmp_path.iterdir()] == ["kept.txt"]


def test_a_file_that_cannot_be_replaced_is_written(tmp_path, monkeypatch):
    def refuse(old, new):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    monkeypatch.setattr(os, "replace", refuse)
    path = tmp_path / "mounted.csv"
    path.write_text("much longer than what comes")
    with replaced(str(path)) as place:
        place.write_text("answers")
    assert path.read_text() == "answers" and [p.name for p in tmp_path.iterdir()] == ["mounted.csv"]


def test_where_a_file_can_be_neither_replaced_nor_written_all_stays_beside_it(tmp_path, monkeypatch):
    def refuse(old, new):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(shutil, "copyfile", refuse)
    path = tmp_path / "mounted.csv"
    path.touch()
    told = r"No space left on device; all of it is in .*\.part"
    with pytest.raises(ReviewError, match=told) as error, replaced(str(path)) as place:
        place.write_text("answers")
    assert Path(str(error.value).rpartition(" ")[2]).read_text() == "answers"


def test_a_file_in_a_folder_that_takes_no_other_is_written(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    path = tmp_path / "o.csv"
    path.write_text("before")
    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with replaced(str(path)) as place:
        place.write_text("answers")
    assert path.read_text() == "answers" and [p.name for p in tmp_path.iterdir()] == ["o.csv"]


def test_a_file_is_replaced_and_none_beside_it_and_others_may_read_it_as_ever(tmp_path):
    beside = tmp_path / "kept.txt.part"
    beside.write_text("in")
    with written(str(tmp_path / "kept.txt"), plain=False) as out:
        out.write(beside.read_text())
    assert (beside.read_text(), (tmp_path / "kept.txt").read_text()) == ("in", "in")
    assert (tmp_path / "kept.txt").stat().st_mode == beside.stat().st_mode


def test_a_file_that_only_its_owner_may_read_stays_so(tmp_path):
    path = tmp_path / "answers.csv"
    path.write_text("before")
    path.chmod(0o600)
    with replaced(str(path)) as beside:
        beside.write_text("after")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("after", 0o600)


@pytest.mark.parametrize("name", ["", "folder", "kept.txt/x", "x" * 300])
def test_what_cannot_be_written_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept.txt").touch()
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(ReviewError, match=f"{name[:20]}.*: cannot be written: "),
        written(name, plain=False) as out,
    ):
        out.write("text")


def rows(path, content):
    """The texts of a table, what is wrong with them, and the table copied with an answer x beside each.

    `content`: None where it is there already.
    """
    if content is not None:
        path.write_text(content)
    with contextlib.ExitStack() as files:
        table, copy = Table(str(path), None, None, None, files), io.StringIO()
        writer = table.writer(copy)
        found = [(review.name.rpartition(" ")[2], review.text, review.problem) for review in table]
        for review in Table(str(path), None, None, None, files):
            writer.write(review, ("x", "1"))
    return found, copy.getvalue()


def test_a_quotation_mark_that_is_never_closed_costs_its_line_only(tmp_path):
    found, copy = rows(tmp_path / "t.csv", 'id,review\n1,"two\nlines"\n2,"never\n\n3,third\n4,last')
    unclosed = "a quotation mark that is never closed"
    assert found == [("2", "two\nlines", ""), ("4", "", unclosed), ("6", "third", ""), ("7", "last", "")]
    assert copy.splitlines()[3:] == ['"2,""never"', "3,third,x,1", "4,last,x,1"]


def test_a_carriage_return_in_a_table_of_doubled_ends_costs_its_line_only(tmp_path):
    found, copy = rows(tmp_path / "t.csv", "review,id\r\r\ngood,1\r\r\nfoo\rbar,2\r\r\nfine,3\r\r\n")
    assert [(text[:4], problem[:7]) for _, text, problem in found] == [("good", ""), ("foo\r", "not CSV"), ("fine", "")]
    assert "fine,3,x,1" in copy
    found, copy = rows(tmp_path / "t.tsv", "id\treview\r\r\n1\tgood\rfilm\r\r\n2\tfine\r\r\n")
    assert [(text, problem[:7]) for _, text, problem in found] == [("", "not CSV"), ("fine", "")]
    _, alone = rows(tmp_path / "one.tsv", "text\r\r\ngood\rfilm\r\r\nfine\r\r\n")
    assert "good\rfilm" in alone and "fine\tx\t1" in alone
    assert "1\tgood\rfilm\r" in copy and "2\tfine\tx\t1" in copy


def test_two_marks_that_quote_nothing_cost_their_lines_and_no_row_between(tmp_path):
    found, _ = rows(tmp_path / "t.csv", 'id,review\n1,good\n"2,best\n3,third\n"4,last\n5,"two\nlines"\n')
    assert [text for _, text, problem in found if not problem] == ["good", "third", "two\nlines"]
    assert len(found) == 5
    found, _ = rows(tmp_path / "t.csv", 'id,review\n1,"bad start\n2,fine\n\n3,ok\n4,"another" end\n')
    assert [text for _, text, problem in found if not problem] == ["fine", "ok", "another end"]
    found, _ = rows(tmp_path / "t.csv", 'id,review\n1,"bad start\n2,fine\n"3","so, so"\n"4","yes, he said"\n')
    assert [text for _, text, problem in found if not problem] == ["fine", "so, so", "yes, he said"]


def test_quotation_marks_behind_a_space_quote_where_most_rows_have_them(tmp_path):
    found, copy = rows(tmp_path / "t.csv", '"id", "review"\n"1", "good, yes"\n"2", "two\nlines"\n')
    assert [text for _, text, _ in found] == ["good, yes", "two\nlines"]
    assert copy.splitlines()[1] == '1,"good, yes",x,1'


def test_a_row_of_several_lines_is_whole_with_a_space_after_its_mark_or_a_blank_line_before(tmp_path):
    found, _ = rows(tmp_path / "t.csv", 'id,review,stars\n1,"nice, warm\nplace, cosy" ,5\n2,fine,4\n')
    assert [(text, problem) for _, text, problem in found] == [("nice, warm\nplace, cosy ", ""), ("fine", "")]
    found, _ = rows(tmp_path / "t.csv", '   \nid,review\n1,"two\nlines" and more\n2,fine\n')
    assert [(text, problem) for _, text, problem in found] == [("two\nlines and more", ""), ("fine", "")]


@pytest.mark.parametrize("names", ["Nr;Text, frei;Preis", "Nr;Text (a|b, c);Preis"])
def test_numbers_with_the_sign_of_a_name_do_not_part_a_table(names, tmp_path):
    (tmp_path / "t.csv").write_text(f"{names}\n1;Gut;12,50\n2;Schlecht;9,90\n")
    with contextlib.ExitStack() as files:
        table = Table(str(tmp_path / "t.csv"), None, None, names.split(";")[1], files)
        assert [review.text for review in table] == ["Gut", "Schlecht"]


def test_stray_marks_behind_spaces_and_marks_behind_a_backslash_cost_no_other_row(tmp_path):
    found, _ = rows(tmp_path / "t.csv", '"id", "review"\n"1", "bad start\n"2", "fine"\n"3", "ok"\n')
    assert [text for _, text, problem in found if not problem] == ["fine", "ok"] and len(found) == 3
    found, copy = rows(tmp_path / "t.csv", 'review,stars\n"Great \\"food\\", loved it",5\nplain,4\n')
    assert [text for _, text, _ in found] == ['Great "food", loved it', "plain"]
    assert copy.splitlines()[1] == '"Great ""food"", loved it",5,x,1'


@pytest.mark.parametrize(
    "content",
    [
        "Review, free text;Stars\nNice, but the soup was cold;1\nGood;5\nSo, so;3\n",
        '"Review, free\ntext";Stars\n"Nice, but the soup was cold";1\nGood;5\nSo, so;3\n',
    ],
)
def test_names_with_other_signs_do_not_part_a_table(content, tmp_path):
    (tmp_path / "t.csv").write_text(content)
    with contextlib.ExitStack() as files:
        table = Table(str(tmp_path / "t.csv"), None, None, content.partition(";")[0].strip('"'), files)
        assert [review.text for review in table] == ["Nice, but the soup was cold", "Good", "So, so"]


def test_a_mark_that_is_never_closed_in_a_first_row_without_names_costs_its_line_only(tmp_path):
    (tmp_path / "t.csv").write_text('1,"never closed\n2,good\n3,fine\n')
    with contextlib.ExitStack() as files:
        found = list(Table(str(tmp_path / "t.csv"), None, None, "2", files, named=False))
    assert [review.text for review in found if not review.problem] == ["good", "fine"]
    assert found[0].problem == "a quotation mark that is never closed"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_copy_has_the_mark_by_which_excel_knows_it(tmp_path, encoding):
    (tmp_path / "t.csv").write_bytes("评论,编号\n好,1\n".encode(encoding))
    _, copy = rows(tmp_path / "t.csv", None)
    assert copy.splitlines() == ["\ufeff评论,编号,label,probability", "好,1,x,1"]


def test_a_copy_of_a_table_in_another_encoding_says_that_it_is_utf8(tmp_path):
    (tmp_path / "t.csv").write_bytes("评论,编号\n好,1\n".encode("gb18030"))
    with contextlib.ExitStack() as files, written(str(tmp_path / "out.csv"), plain=False) as out:
        Table(str(tmp_path / "t.csv"), "gb18030", None, None, files).writer(out)
    assert (tmp_path / "out.csv").read_text("utf-8").startswith("\ufeff评论,编号,label")
    with contextlib.ExitStack() as files, pytest.raises(ReviewError, match=r"the mark of UTF-8, so it is not gb18030"):
        Table(str(tmp_path / "out.csv"), "gb18030", None, None, files)


def test_a_copy_keeps_its_ends_of_lines_and_the_names_as_they_stand(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"id, review \r1,good\r")
    _, copy = rows(tmp_path / "t.csv", None)
    assert copy == "id, review ,label,probability\r1,good,x,1\r"


def test_a_label_with_a_tab_parts_no_row(tmp_path):
    (tmp_path / "t.tsv").write_text("id\treview\n1\tgood\n")
    with contextlib.ExitStack() as files, written(str(tmp_path / "out.tsv"), plain=False) as out:
        table = Table(str(tmp_path / "t.tsv"), None, None, None, files)
        writer = table.writer(out)
        for review in table:
            writer.write(review, ("a\tb", "1"))
    assert (tmp_path / "out.tsv").read_text().splitlines()[1] == "1\tgood\ta b\t1"


def test_half_a_character_is_copied_as_a_question_mark(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"id,review\n1,the +2AA- cat\n")
    with contextlib.ExitStack() as files, written(str(tmp_path / "out.csv"), plain=False) as out:
        table = Table(str(tmp_path / "t.csv"), "utf-7", None, None, files)
        writer = table.writer(out)
        for review in table:
            writer.write(review, ("x", "1"))
    assert (tmp_path / "out.csv").read_text().splitlines()[1] == "1,the ? cat,x,1"


@pytest.mark.parametrize("text", ["\u2003", "\u200b\u2028 \x85", "\0\t\ufeff\xa0"])
def test_what_says_nothing_is_an_empty_text(text):
    assert Review("1", text).problem == says_nothing(text) * "an empty text" == "an empty text"
    assert not Review("1", text + "\udcff").problem and not says_nothing(text + ".")


def test_a_key_that_comes_twice_is_a_defect():
    lines = io.StringIO('{"text": "good", "text": "bad"}\n{"text": "good"}\n')
    first, second = objects_of(lines, "in.jsonl", None)
    assert first.problem == "not JSON: two keys are called 'text'" and second.text == "good"


def test_what_stands_in_a_file_behind_standard_output_stays(tmp_path):
    code = "from apps.outputs import written\nwith written('/dev/stdout', plain=False) as out: out.write('new\\n')"
    with open(tmp_path / "all.txt", "w") as out:
        for _ in range(2):
            subprocess.run([sys.executable, "-c", code], stdout=out, check=True, timeout=300)
    assert (tmp_path / "all.txt").read_text() == "new\nnew\n"


def test_a_tsv_has_quotes_only_where_most_that_begin_a_cell_end_one(tmp_path):
    found, copy = rows(tmp_path / "t.tsv", 'id\treview\n1\t"bare\n2\tsay "hi"\n')
    assert [text for _, text, _ in found] == ['"bare', 'say "hi"']
    assert copy == 'id\treview\tlabel\tprobability\n1\t"bare\tx\t1\n2\tsay "hi"\tx\t1\n'
    found, copy = rows(tmp_path / "t.tsv", 'id\treview\n1\t"say ""hi"""\n')
    assert found[0][1] == 'say "hi"'
    assert copy.endswith('1\t"say ""hi"""\tx\t1\n')
    # One row that is spoilt takes the quotes of no others.
    found, _ = rows(tmp_path / "t.tsv", '"review"\t"id"\n"good"\t"1"\n"It broke\t"2"\n"bad"\t"3"\n')
    assert found[0][1] == "good"


@pytest.mark.parametrize("before", ["", "sep=\t\n"])
def test_a_tsv_whose_quoted_cells_have_several_lines_is_read_whole(tmp_path, before):
    content = f'{before}review\tid\n"two\nlines"\t1\n"He said ""no"".\nSo"\t2\nplain\t3\n'
    found, copy = rows(tmp_path / "t.tsv", content)
    assert [text for _, text, _ in found] == ["two\nlines", 'He said "no".\nSo', "plain"]
    assert copy.endswith('So"\t2\tx\t1\nplain\t3\tx\t1\n')
    found, _ = rows(tmp_path / "t.tsv", 'review\tid\nalone\n"Great" film\t1\n')
    assert [text for _, text, _ in found] == ["alone", '"Great" film']


def test_what_stands_before_a_table_is_no_column(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"\n\nid;review\n1;good film\n")
    with contextlib.ExitStack() as files:
        (review,) = Table(str(path), None, None, None, files)
    assert (review.name, review.text) == (f"{path}, line 4", "good film")
    path.write_bytes(b"\xef\xbb\xbftext,label\nfine,\n")
    with contextlib.ExitStack() as files:
        (review,) = Table(str(path), "UTF-8", None, None, files)
    assert review.text == "fine"


@pytest.mark.parametrize("before", ["   \n", ";;\n", ' ;"";\n\n'])
def test_rows_of_empty_cells_name_no_columns(tmp_path, before):
    found, copy = rows(tmp_path / "t.csv", f"{before}id;review;x\n1;so, then;2\n")
    assert [text for _, text, _ in found] == ["so, then"]
    assert copy == "id;review;x;label;probability\n1;so, then;2;x;1\n"


def test_what_stands_in_quotes_does_not_part_the_columns(tmp_path):
    found, copy = rows(tmp_path / "t.csv", '"Name, given name, ""nick"", age";text\nA;good\n')
    assert [text for _, text, _ in found] == ["good"] and copy.endswith("A;good;x;1\n")


def test_a_delimiter_at_the_end_of_rows_makes_no_column(tmp_path):
    found, copy = rows(tmp_path / "t.csv", "id,review\n1,good,\n2,bad,,x\n")
    assert [problem for _, _, problem in found] == ["", "4 cells where the first line names 2"]
    assert copy.splitlines()[1:] == ["1,good,x,1", "2,bad,,x"]


def test_a_row_whose_last_cells_are_left_out_is_answered_where_something_follows_the_text(tmp_path):
    lines = ["1,fine,5,so", "7,good,5", "8,cut off", "and on,5,so"]
    found, copy = rows(tmp_path / "t.csv", "\n".join(["id,review,stars,remark", *lines, ""]))
    assert [problem[:7] for _, _, problem in found] == ["", "", "2 cells", "3 cells"]
    assert copy.splitlines()[1:] == ["1,fine,5,so,x,1", "7,good,5,,x,1", *lines[2:]]


def test_signs_in_the_name_of_a_column_do_not_part_it(tmp_path):
    found, _ = rows(tmp_path / "t.csv", "id,rating (1|2|3),comment\n1,3,good\n2,1\n3,2\n4,3,fine\n")
    assert [text for _, text, _ in found] == ["good", "", "", "fine"]


def test_backslashes_that_escape_marks_are_told_where_no_row_breaks(tmp_path):
    found, _ = rows(tmp_path / "t.csv", "id;review\n" + "".join(f'{i};"He said \\"hi\\" to me"\n' for i in range(9)))
    assert {text for _, text, _ in found} == {'He said "hi" to me'}


@pytest.mark.parametrize(
    "content",
    [
        'id;text\n1;"He said \\"hi\\" to me"\n',
        'id;text\n1;"He said \\""hi\\"" to me"\n',
        'id;text\n1;"He said ""hi"" to me"\n',
        'id;text\n1;"\\"So; then\\" he said"\n',
        'id;text\n1; "so; then"\n2; "and"\n',
        '1;""\n2;"a\\"b"\n',
        'a\t"b"\nc\t"d\n',
        '"a\nb"\tc\n"d"\te\n',
    ],
)
def test_training_and_the_app_take_the_same_marks(content):
    """An app imports nothing of bigkeras, and so has its own copy."""
    content *= 30  # of what it looks at the app leaves the last line out, which may be cut
    for delimiter in ";\t":
        assert has_escapes(content, delimiter) is rows_module._has_escapes(content, delimiter)
        assert has_spaced_quotes(content, delimiter) is rows_module._has_spaced_quotes(content, delimiter)
    assert has_quotes(content) is rows_module._has_quotes(content)
    assert regular_delimiter(content) == rows_module._found_delimiter(content)


def test_backslashes_that_escape_no_mark_stay(tmp_path):
    lines = ['1,"\\"Great\\", she said"', "2,shrug \\_(so)_/", "3,ends in \\", '4,"C:\\new, old"']
    found, copy = rows(tmp_path / "t.csv", "\n".join(["id,review", *lines]) + "\n")
    assert [text for _, text, _ in found] == ['"Great", she said', "shrug \\_(so)_/", "ends in \\", "C:\\new, old"]
    assert copy.splitlines()[2] == "2,shrug \\_(so)_/,x,1"


def test_a_cell_of_a_tsv_with_marks_inside_is_not_quoted(tmp_path):
    found, copy = rows(tmp_path / "t.tsv", 'id\treview\n2\t"Must see", they said, and I say "yes"\n3\t"Bare start\n')
    assert [text for _, text, _ in found] == ['"Must see", they said, and I say "yes"', '"Bare start']
    assert copy.splitlines()[1] == '2\t"Must see", they said, and I say "yes"\tx\t1'


def test_a_carriage_return_at_the_beginning_does_not_join_later_lines(tmp_path, monkeypatch):
    (tmp_path / "t.txt").write_bytes(b"a\rb" + b" " * 2**16 + b"\nc\nd\n")
    assert [text.strip() for text in texts(tmp_path / "t.txt")] == ["a", "b", "c", "d"]
    reading, writing = os.pipe()
    os.write(writing, b"a\rb")

    def more():
        os.write(writing, b"\nc\r\nd\n")
        os.close(writing)

    with open(reading, "rb") as file:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=file))
        lines = standard_input()
        later = threading.Timer(0.0, more)
        file.peek(1)  # what is there before the rest comes
        later.start()
        assert [review.text for review in lines] == ["a", "b", "c", "d"]
        later.join()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_copied_cell_keeps_its_ends_of_lines(end, tmp_path):
    cells = ["fine\rfood", "fine\nfood", "fine\r\nfood", "plain"]
    out = io.StringIO(newline="")
    with contextlib.ExitStack() as files:
        (tmp_path / "t.csv").write_bytes((f"review{end}" + "".join(f'"{cell}"{end}' for cell in cells)).encode())
        table = Table(str(tmp_path / "t.csv"), None, None, None, files)
        writer = table.writer(out)
        for review in table:
            writer.write(review, ("good", "0.9"))
    assert list(csv.reader(io.StringIO(out.getvalue(), newline="")))[1:] == [[cell, "good", "0.9"] for cell in cells]


def test_an_object_without_any_text_does_not_decide_where_the_texts_are(tmp_path):
    (tmp_path / "f.jsonl").write_text('{}\n{"id": 7}\n{"id": 8, "review": "good"}\n')
    with open(tmp_path / "f.jsonl", encoding="utf-8") as file:
        assert [r.problem for r in objects_of(file, "f.jsonl", None)] == ["no text in it"] * 2 + [""]


def test_a_link_to_itself_cannot_be_written(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ReviewError, match="loop: cannot be written"), written(str(tmp_path / "loop"), False):
        pass


def test_an_empty_line_of_a_single_column_is_an_empty_text(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("review\ngood\n\nbad\n")
    with contextlib.ExitStack() as files:
        found = list(Table(str(path), None, None, "review", files))
    assert [review.text for review in found] == ["good", "", "bad"] and found[1].problem == "an empty text"


@pytest.mark.parametrize(
    ("text", "encoding", "told"),
    [("这个菜很好吃，下次还来\n", "gb18030", "not UTF-8 text"), ("1\nGood film\n", "utf-16-le", "UTF-16 or UTF-32")],
)
def test_standard_input_of_another_encoding_is_told(text, encoding, told, monkeypatch):
    stream = io.TextIOWrapper(io.BufferedReader(io.BytesIO(text.encode(encoding))))
    monkeypatch.setattr("sys.stdin", stream)
    with pytest.raises(ReviewError, match=f"standard input: {told}"):
        list(standard_input())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_lines_of_old_macs_end_with_a_carriage_return(tmp_path, encoding, monkeypatch):
    (tmp_path / "mac.txt").write_bytes("good film\rbad film\r".encode(encoding))
    with contextlib.ExitStack() as files:
        found = lines_of(Table.open(str(tmp_path / "mac.txt"), None, files), "mac.txt")
        assert [line.text for line in found] == ["good film", "bad film"]
    if encoding == "utf-8":
        with open(tmp_path / "mac.txt", encoding="utf-8") as stream:
            monkeypatch.setattr(sys, "stdin", stream)
            assert [line.text for line in standard_input()] == ["good film", "bad film"]


def test_a_standard_input_that_cannot_be_read_is_told_as_such(monkeypatch):
    with open(os.devnull, "w") as file, open(os.dup(file.fileno()), "rb", closefd=True) as unreadable:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=unreadable))
        with pytest.raises(ReviewError, match="standard input: cannot be read: Bad file descriptor"):
            list(standard_input())


def test_excels_first_line_tells_what_parts_the_columns_and_is_kept(tmp_path):
    found, copy = rows(tmp_path / "t.csv", "sep=;\r\nid;review\r\n1;so, then\r\n")
    assert found == [("3", "so, then", "")]
    assert copy == "sep=;\r\nid;review;label;probability\r\n1;so, then;x;1\r\n"


def test_a_table_without_names_loses_no_text(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("pos,a great film\nneg,no\n")
    with contextlib.ExitStack() as files:
        table, copy = Table(str(path), None, None, "2", files, named=False), io.StringIO()
        writer = table.writer(copy)
        found = list(table)
        for review in found:
            writer.write(review, ("x", "1"))
        with pytest.raises(ReviewError, match="--column takes one of '1', '2'"):
            Table(str(path), None, None, None, files, named=False)
    assert [review.text for review in found] == ["a great film", "no"] and found[0].name.endswith("line 1")
    assert copy.getvalue() == "pos,a great film,x,1\nneg,no,x,1\n"


def test_what_parts_a_table_without_names_is_what_its_rows_share(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Gut, aber teuer;3\nSchlecht, nie wieder;1\nSo, so, na ja;2\n")
    with contextlib.ExitStack() as files:
        texts = [review.text for review in Table(str(path), None, None, "1", files, named=False)]
    assert texts == ["Gut, aber teuer", "Schlecht, nie wieder", "So, so, na ja"]


def test_a_table_of_one_column_without_a_name_is_parted_by_commas(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('"Good, cheap"\n"Bad, and slow"\n')
    with contextlib.ExitStack() as files:
        assert Table(str(path), None, None, "1", files, named=False).delimiter == ","


def test_a_text_that_is_taken_for_a_name_is_told(tmp_path, capsys):
    found, _ = rows(tmp_path / "t.csv", "a great film\nno\n")
    assert [text for _, text, _ in found] == ["no"]
    assert "'a great film' is taken for the column's name, and no text; --no-header" in capsys.readouterr().err
    rows(tmp_path / "t.csv", "Review\nno\n")
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"PK\x03\x04 more", "is a zip archive, such as an Excel sheet"), (b"\x1f\x8b\x08", "is compressed by gzip")],
)
def test_files_that_are_no_texts_are_named_as_what_they_are(tmp_path, content, told):
    (tmp_path / "t.xlsx").write_bytes(content)
    with contextlib.ExitStack() as files, pytest.raises(ReviewError, match=told):
        Table.open(str(tmp_path / "t.xlsx"), None, files)


def test_a_json_array_is_one_line(tmp_path):
    with pytest.raises(ReviewError, match=r"t\.json: one JSON array; .* jq -c"):
        list(objects_of(io.StringIO('\n[\n {"text": "good"}\n]\n'), "t.json", None))


@pytest.mark.parametrize(
    "text", ['{\n "review": {"0": "good"}\n}\n', '{"review":{"0":"good","1":"bad"},"id":{"0":1,"1":2}}']
)
def test_a_table_that_is_one_json_object_is_one_line(text):
    with pytest.raises(ReviewError, match=r"t\.json: one JSON object; .* lines=True"):
        list(objects_of(io.StringIO(text), "t.json", None))


def test_nested_objects_are_defects_of_their_lines():
    text = '{"review": {"en": "good"}}\n{"review": "fine"}\n'
    found = list(objects_of(io.StringIO(text), "t.json", "review"))
    assert [review.defect for review in found] == ["no text under 'review'", ""]


def test_rows_that_windows_ends_twice_are_one_row_each(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'review\r\r\ngood\r\r\n"bad, very"\r\r\n')
    with contextlib.ExitStack() as files:
        found = list(Table(str(path), None, None, "review", files))
    assert [(review.text, review.problem) for review in found] == [("good", ""), ("bad, very", "")]
