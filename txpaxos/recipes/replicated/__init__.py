"""The replicated side of the recipes: typed services, one subject each."""
