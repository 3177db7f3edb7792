"""Results as tables, documents, pictures and one page, without an engine."""
