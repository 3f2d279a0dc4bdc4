"""Questions with the pages that answer them, and how well a ranking answers them."""
