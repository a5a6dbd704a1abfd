"""Holds resources of the Prometheus operator to its definitions: the right types, and nothing that they do not know.

The models take what they do not know, and leave it out. So what they make of a resource is to be that resource.
"""

import json
import sys

from cloudcoil.models.prometheus_operator import v1

wrong = False
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        resource = json.load(file)
    model = getattr(v1, resource["kind"]).model_validate(resource)
    made = model.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def differences(given, taken, where):
        if isinstance(given, dict) and isinstance(taken, dict):
            for key in given:
                yield from differences(given[key], taken.get(key), f"{where}.{key}")
        elif isinstance(given, list) and isinstance(taken, list) and len(given) == len(taken):
            for number, (one, other) in enumerate(zip(given, taken)):
                yield from differences(one, other, f"{where}[{number}]")
        elif given != taken:
            yield f"{where}: {given!r} is taken as {taken!r}"

    for difference in differences(resource, made, resource["kind"]):
        print(difference)
        wrong = True
sys.exit(wrong)
