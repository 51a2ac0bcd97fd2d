"""The retriever: keeps the chunks of every tenant's collections and finds the ones that answer a query."""
