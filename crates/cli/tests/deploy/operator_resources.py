"""Checks resources of the Prometheus operator: correct types, and no unknown fields.

The models ignore unknown fields, so this compares a resource with the result of parsing and serializing it.
"""

import json
import sys

from cloudcoil.models.prometheus_operator import v1

failed = False
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        resource = json.load(file)
    model = getattr(v1, resource["kind"]).model_validate(resource)
    parsed = model.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def differences(original, parsed_value, where):
        if isinstance(original, dict) and isinstance(parsed_value, dict):
            for key in original:
                yield from differences(original[key], parsed_value.get(key), f"{where}.{key}")
        elif isinstance(original, list) and isinstance(parsed_value, list) and len(original) == len(parsed_value):
            for number, (one, other) in enumerate(zip(original, parsed_value)):
                yield from differences(one, other, f"{where}[{number}]")
        elif original != parsed_value:
            yield f"{where}: {original!r} is parsed as {parsed_value!r}"

    for difference in differences(resource, parsed, resource["kind"]):
        print(difference)
        failed = True
sys.exit(failed)
