"""Files for spreadsheets hold no formulas that a person slipped in."""

import csv
from io import StringIO

from tenants.sheets import csv_response


def test_texts_that_would_be_formulas_are_quoted_and_amounts_are_not() -> None:
    cells = ["=1+1", "+cmd", "-x", "@sum", "\tx", "-1.25", "+3", "plain", "", "-1.2.3"]
    answer = csv_response(name="a-file", head=("头", "b"), rows=[cells, [1, -2]])
    assert answer.content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.reader(StringIO(answer.content.decode("utf-8-sig"))))
    assert rows == [
        ["头", "b"],
        ["'=1+1", "'+cmd", "'-x", "'@sum", "'\tx", "-1.25", "+3", "plain", "", "'-1.2.3"],
        ["1", "-2"],
    ]
