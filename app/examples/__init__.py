"""Small programs that run as they stand; each extends the toolkit from outside."""
