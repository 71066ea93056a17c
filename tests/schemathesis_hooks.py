"""Loaded by schemathesis (SCHEMATHESIS_HOOKS): which valid requests the service may refuse with a 422."""

import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

# Enums and the cursor are the database's, and a latitude of 1e-80 degrees is a number like any other to JSON Schema.
JUDGED_BY_THE_DATABASE = {"payment_method", "shipping_address.lat", "shipping_address.lng", "statuses", "after"}


@schemathesis.check
def valid_requests_are_accepted(ctx, response, case):
    """As positive_data_acceptance, but for what no schema can say."""
    if response.status_code == 422:
        problem = response.json()
        fields = {error["field"].partition("[")[0] for error in problem.get("errors", [])}
        if problem["code"] == "idempotency_key_reused" or (fields and fields <= JUDGED_BY_THE_DATABASE):
            return None
    return positive_data_acceptance(ctx, response, case)
