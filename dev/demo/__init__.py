"""One real PDF through the whole system, shown step by step."""
