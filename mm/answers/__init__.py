"""What a reply answers, and whether two answers are the same, for votes, rewards and grades."""

from .extraction import before_answer, extract_answer, spoken
from .matching import match_choice, same_answer
