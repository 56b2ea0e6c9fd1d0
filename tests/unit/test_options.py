"""Options: units, what is understood and refused, that what is shown reads back, and how it is spelt."""

from __future__ import annotations

import pytest

from fastcast.flags import flag
from fastcast.options import (
    GIB,
    KIB,
    MIB,
    Number,
    Option,
    Switch,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


class TestSizes:
    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("0", 0),
            ("65536", 65536),
            ("10B", 10),
            ("1KB", 1000),
            ("1KiB", 1024),
            ("64kib", 64 * KIB),
            ("1MIB", MIB),
            ("1.5MiB", 1536 * KIB),
            ("2GB", 2_000_000_000),
            ("2 GiB", 2 * GIB),
            (" 7 ", 7),
            ("0.5KiB", 512),
        ],
    )
    def test_units_are_understood(self, text: str, size: int) -> None:
        assert parse_size(text) == size

    @pytest.mark.parametrize(
        "text",
        ["", "KiB", "-1", "+1", "1k", "1m", "1g", "1KiBB", "1e3", "0x1", "1_0", ".5KB", "1.KB", "1,5KB", "٣"],
    )
    def test_other_text_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="is not a size"):
            parse_size(text)

    def test_a_part_of_a_byte_is_refused(self) -> None:
        with pytest.raises(ValueError, match="not a whole number of bytes"):
            parse_size("1.0001KiB")

    def test_a_number_longer_than_any_size_is_refused(self) -> None:
        with pytest.raises(ValueError, match="is not a size"):
            parse_size("9" * 10_000)

    @pytest.mark.parametrize("size", [0, 1, 1000, 1023, KIB, 1536 * KIB, MIB, 3 * GIB, GIB + 1])
    def test_a_formatted_size_reads_back(self, size: int) -> None:
        assert parse_size(format_size(size)) == size

    def test_the_largest_dividing_unit_is_shown(self) -> None:
        sizes = (1000, 64 * KIB, MIB, 1088 * KIB)
        assert [format_size(size) for size in sizes] == ["1000", "64KiB", "1MiB", "1088KiB"]


class TestDurations:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("0", 0.0),
            ("20", 20.0),
            ("0.25", 0.25),
            ("20s", 20.0),
            ("500ms", 0.5),
            ("1.5s", 1.5),
            ("1m", 60.0),
            ("1.5m", 90.0),
            ("1H", 3600.0),
            ("1 h", 3600.0),
            ("0.1s", 0.1),
        ],
    )
    def test_units_are_understood(self, text: str, seconds: float) -> None:
        assert parse_duration(text) == seconds

    @pytest.mark.parametrize("text", ["", "s", "-1s", "1d", "1min", "1h30m", "inf", "nan", "1e3"])
    def test_other_text_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="is not a duration"):
            parse_duration(text)

    @pytest.mark.parametrize("seconds", [0.0, 0.01, 0.5, 1.5, 20.0, 60.0, 90.0, 3600.0, 86400.0])
    def test_a_formatted_duration_reads_back(self, seconds: float) -> None:
        assert parse_duration(format_duration(seconds)) == seconds

    def test_the_largest_dividing_unit_is_shown(self) -> None:
        durations = (0, 0.5, 20, 60, 90, 3600)
        assert [format_duration(seconds) for seconds in durations] == ["0s", "0.5s", "20s", "1m", "90s", "1h"]


class TestNumbers:
    @pytest.mark.parametrize(("text", "number"), [("0", 0.0), ("30", 30.0), (" 0.5 ", 0.5), ("100", 100.0)])
    def test_decimals_are_understood(self, text: str, number: float) -> None:
        assert Number(100).check(Number(100).parse(text)) == number

    @pytest.mark.parametrize("value", ["", "-1", "1e3", ".5", "many", True, None])
    def test_what_is_no_number_is_refused(self, value: object) -> None:
        kind = Number(100)
        with pytest.raises(ValueError, match="expected a number, not"):
            kind.check(kind.parse(value) if isinstance(value, str) else value)

    @pytest.mark.parametrize("value", [-0.5, 100.5, float("nan"), float("inf")])
    def test_limits_hold(self, value: float) -> None:
        with pytest.raises(ValueError, match="is not between 0 and 100"):
            Number(100).check(value)

    @pytest.mark.parametrize("number", [0.0, 0.25, 20.0])
    def test_what_is_shown_reads_back(self, number: float) -> None:
        assert Number(100).parse(Number(100).show(number)) == number


class TestSpelling:
    def test_a_flag_has_dashes(self) -> None:
        assert Option("max_queue", Number(1), 0.0, "Limits", "").flag == "--max-queue"

    def test_an_argument_is_in_capitals(self) -> None:
        assert Option("url", Number(1), 0.0, "Target", "", argument=True).flag == "URL"


class TestFlags:
    def test_a_switch_may_have_a_word_of_its_own_for_no(self) -> None:
        made = flag(Option("text", Switch(negative="--binary"), False, "Messages", "Help."))
        assert (made.opts, made.secondary_opts) == (["--text"], ["--binary"])

    def test_a_switch_is_otherwise_negated_by_no(self) -> None:
        made = flag(Option("page", Switch(), True, "Listening", "Help."))
        assert (made.opts, made.secondary_opts) == (["--page"], ["--no-page"])

    def test_the_default_is_told(self) -> None:
        assert flag(Option("rate", Number(9), 5.0, "Messages", "Help.")).help == "Help.  [default: 5]"
