"""The conformance table: every row, in the order of the specification's topics."""

from __future__ import annotations

from tests.conformance.cases_closing import CLOSING_CASES
from tests.conformance.cases_framing import FRAMING_CASES
from tests.conformance.cases_text import TEXT_CASES

CASES = FRAMING_CASES + TEXT_CASES + CLOSING_CASES
