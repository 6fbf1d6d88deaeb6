"""GSM8K: questions with one number as the answer, put in one of several formats, graded in process."""
