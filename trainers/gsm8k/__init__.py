"""GSM8K and other questions with a number as the answer: base, SFT, GRPO, traces, and what they come to."""
