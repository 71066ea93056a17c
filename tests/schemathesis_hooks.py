"""Loaded by schemathesis (SCHEMATHESIS_HOOKS): which valid requests the service may refuse with a 422."""

import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

# Enums and the cursor are the database's, a latitude of 1e-80 degrees is a number like any other to JSON Schema, which
# knows neither the size of a document nor which lines an order has, nor that a quantity needs a key. "request" is what
# PostgreSQL cannot read: a document without a schema of its own may hold \u0000.
JUDGED_BY_THE_DATABASE = {"payment_method", "statuses", "after", "metadata", "details", "decisions", "request"}
JUDGED_BY_THE_DATABASE |= {f"{which}_address.{field}" for which in ("shipping", "billing") for field in ("lat", "lng")}


@schemathesis.check
def valid_requests_are_accepted(ctx, response, case):
    """As positive_data_acceptance, but for what no schema can say."""
    if response.status_code == 422:
        problem = response.json()
        fields = {error["field"].partition("[")[0] for error in problem.get("errors", [])}
        has_key = isinstance(case.body, dict) and case.body.get("change_key") is not None
        judged = JUDGED_BY_THE_DATABASE if has_key else JUDGED_BY_THE_DATABASE | {"change_key"}
        if problem["code"] == "idempotency_key_reused" or (fields and fields <= judged):
            return None
    return positive_data_acceptance(ctx, response, case)
