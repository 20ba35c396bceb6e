"""What every floor stands on: errors, documents, the clock. Nothing here knows a rule of the product."""
