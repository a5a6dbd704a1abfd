"""Validates answers of the API against docs/api.yaml.

usage: validate_api.py API_YAML DIRECTORY

Each file of the directory is named SCHEMA.NUMBER.json, after a schema of the document. Fields that the document does not
describe are errors too, although clients have to ignore them.
"""

import json
import pathlib
import sys

import jsonschema
import yaml


def close(schema):
    """Makes every object with described properties refuse others."""
    if isinstance(schema, dict):
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
            # The exporter always sends all fields.
            schema.setdefault("required", list(schema["properties"]))
        for part in schema.values():
            close(part)
    elif isinstance(schema, list):
        for part in schema:
            close(part)


document = yaml.safe_load(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
assert document["openapi"].startswith("3.1."), document["openapi"]
components = document["components"]
close(components)
schemas = components["schemas"]
for name, schema in schemas.items():
    jsonschema.Draft202012Validator.check_schema(schema)

failures, used = [], set()
for path in sorted(pathlib.Path(sys.argv[2]).iterdir()):
    name = path.name.split(".")[0]
    used.add(name)
    schema = {"$ref": f"#/components/schemas/{name}", "components": components}
    validator = jsonschema.Draft202012Validator(schema)
    for error in validator.iter_errors(json.loads(path.read_text(encoding="utf-8"))):
        failures.append(f"{name} at {error.json_path}: {error.message[:300]}")
if not used:
    failures.append("no answers")
print("\n".join(failures[:40]))
sys.exit(1 if failures else 0)
