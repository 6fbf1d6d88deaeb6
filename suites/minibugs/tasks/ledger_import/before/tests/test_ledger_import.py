import pytest

from ledgerline import Booking, ColumnError, parse_cents, read_statement, split_line


def test_plain_columns():
    assert split_line("a,b,c") == ["a", "b", "c"]
    assert split_line("a;;c;", delimiter=";") == ["a", "", "c", ""]
    assert split_line("") == [""]


def test_quoted_columns_may_hold_delimiters():
    assert split_line('1,"a,b",2') == ["1", "a,b", "2"]
    assert split_line('"x"') == ["x"]
    assert split_line('"",""') == ["", ""]


def test_doubled_quotes_inside_a_quoted_column():
    assert split_line('"a ""b"" c",d') == ['a "b" c', "d"]
    assert split_line('1,"5"" disk",2') == ["1", '5" disk', "2"]
    assert split_line('"""Mill Lane"" rent";9', delimiter=";") == ['"Mill Lane" rent', "9"]


def test_doubled_quotes_at_the_edges_of_a_column():
    assert split_line('"""a""",b') == ['"a"', "b"]
    assert split_line('x,"""",y') == ["x", '"', "y"]
    assert split_line('""""""') == ['""']


def test_delimiter_right_after_a_doubled_quote():
    assert split_line('"say ""no"",please",1') == ['say "no",please', "1"]
    assert split_line('""",""",2') == ['","', "2"]


def test_open_quotes_are_refused():
    for line in ('a,"b', '"', '"a""'):
        with pytest.raises(ColumnError):
            split_line(line)


def test_amounts():
    assert [parse_cents(text) for text in ("7", "-7", "0.5", "1 234.50", "+.05")] == [
        700,
        -700,
        50,
        123450,
        5,
    ]
    for text in ("", "1.234", "ten"):
        with pytest.raises(ValueError):
            parse_cents(text)


def test_statement_follows_its_header():
    text = 'memo,amount,date\nbread,-3.20,2024-05-02\n\n"tea, green",-4,2024-05-03\n'
    assert read_statement(text) == [
        Booking("2024-05-02", "bread", -320),
        Booking("2024-05-03", "tea, green", -400),
    ]


def test_statement_with_quotation_marks():
    text = 'date,memo,amount\n2024-05-01,"Rent ""Mill Lane"", May",-800\n2024-05-02,"""",1\n'
    assert read_statement(text) == [
        Booking("2024-05-01", 'Rent "Mill Lane", May', -80000),
        Booking("2024-05-02", '"', 100),
    ]


def test_statement_refuses_rows_of_another_width():
    with pytest.raises(ColumnError):
        read_statement("date,memo,amount\n2024-05-01,rent\n")
