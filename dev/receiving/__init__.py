"""The page docs/receiving-webhooks.md: a text, programs that tests run, and tables from the code."""
