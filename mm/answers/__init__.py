"""What a reply answers, and whether two answers are the same, for votes, rewards and grades."""

from .extraction import answer_opening, before_answer, extract_answer, shown_reply, spoken
from .matching import choice_error, judge, match_choice, same_answer, unjudgeable
