"""The machinery of the book: execute its chapters, compare and store their outputs, build the site
and check it."""
