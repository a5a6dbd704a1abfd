//! Validates the dashboards against a JSON schema of Grafana's types. `make schema` generates
//! `schema/dashboard.schema.json` from `@grafana/schema`, and also validates the dashboards with Ajv.

use poolscope_cli::monitoring::dashboards::Dashboard;
use serde_json::{Value, json};

use super::{committed, panels};

const SCHEMA: &str = include_str!("../schema/dashboard.schema.json");

/// Returns the first violation. Supports the keywords that the generator uses, and rejects others.
fn check(value: &Value, schema: &Value, at: &str) -> Result<(), String> {
    for (keyword, expected) in schema.as_object().ok_or("a schema is an object")? {
        match keyword.as_str() {
            "type" => {
                let types = expected.as_array().map_or_else(|| vec![expected], |types| types.iter().collect());
                if !types.iter().any(|it| is_a(value, it)) {
                    return Err(format!("{at} is {value}, expected {expected}"));
                }
            }
            "const" if value != expected => return Err(format!("{at} is {value}, expected {expected}")),
            "enum" if !expected.as_array().ok_or("enum")?.contains(value) => {
                return Err(format!("{at} is {value}, expected one of {expected}"));
            }
            "required" => {
                let missing = expected.as_array().ok_or("required")?.iter().filter_map(Value::as_str);
                if let Some(name) = missing.filter(|_| value.is_object()).find(|name| value.get(name).is_none()) {
                    return Err(format!("{at} has no {name}"));
                }
            }
            "properties" => {
                for (name, schema) in expected.as_object().ok_or("properties")? {
                    value.get(name).map_or(Ok(()), |value| check(value, schema, &format!("{at}.{name}")))?;
                }
            }
            "additionalProperties" => {
                let known = |name: &str| schema["properties"].get(name).is_some();
                let others = value.as_object().into_iter().flatten().filter(|(name, _)| !known(name));
                for (name, value) in others {
                    match expected {
                        Value::Bool(true) => {}
                        Value::Bool(false) => return Err(format!("{at} has the unknown property {name}")),
                        schema => check(value, schema, &format!("{at}.{name}"))?,
                    }
                }
            }
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    check(value, expected, &format!("{at}[{index}]"))?;
                }
            }
            "minItems" | "maxItems" => {
                let (count, limit) = (value.as_array().map(|it| it.len() as u64), expected.as_u64());
                if count.is_some() && if keyword == "minItems" { count < limit } else { count > limit } {
                    return Err(format!("{at} has {count:?} items, expected {keyword} {expected}"));
                }
            }
            "anyOf" => {
                let mut problems = Vec::new();
                for schema in expected.as_array().ok_or("anyOf")? {
                    problems.extend(check(value, schema, at).err());
                }
                if problems.len() == expected.as_array().map_or(0, Vec::len) {
                    return Err(format!("{at} matches no alternative: {}", problems.join("; or ")));
                }
            }
            "not" if check(value, expected, at).is_ok() => return Err(format!("{at} is {value}, which is excluded")),
            "const" | "enum" | "not" | "$comment" | "$schema" | "definitions" => {}
            unknown => return Err(format!("unsupported keyword {unknown}")),
        }
    }
    Ok(())
}

fn is_a(value: &Value, name: &Value) -> bool {
    match name.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        _ => false,
    }
}

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

/// Returns the schema of a panel's type; open and collapsed rows have one each.
fn panel_schema<'a>(schema: &'a Value, panel: &Value) -> &'a Value {
    let kinds = schema["properties"]["panels"]["items"]["anyOf"].as_array().unwrap();
    let mut of_type =
        kinds.iter().map(|kind| (kind, &kind["properties"])).filter(|(_, it)| it["type"]["const"] == panel["type"]);
    let (kind, _) =
        of_type.find(|(_, it)| it["collapsed"].is_null() || it["collapsed"]["const"] == panel["collapsed"]).unwrap();
    kind
}

#[test]
fn dashboards_match_the_schema() {
    let schema = schema();
    for dashboard in Dashboard::ALL {
        let json = committed(dashboard);
        // First panel by panel, for a precise error.
        for panel in json["panels"].as_array().unwrap() {
            check(panel, panel_schema(&schema, panel), &format!("{}", panel["title"])).unwrap();
        }
        check(&json, &schema, dashboard.file()).unwrap();
    }
}

#[test]
fn overrides_set_known_properties() {
    let schema = schema();
    for dashboard in Dashboard::ALL {
        for panel in panels(&committed(dashboard)) {
            let fields = &panel_schema(&schema, panel)["properties"]["fieldConfig"]["properties"]["defaults"];
            for property in panel["fieldConfig"]["overrides"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|it| it["properties"].as_array().unwrap())
            {
                let id = property["id"].as_str().unwrap();
                let property_schema = match id.strip_prefix("custom.") {
                    Some(own) => &fields["properties"]["custom"]["properties"][own],
                    None => &fields["properties"][id],
                };
                assert!(property_schema.is_object(), "{}: unknown property {id}", panel["title"]);
                check(&property["value"], property_schema, &format!("{}, {id}", panel["title"])).unwrap();
            }
        }
    }
}

#[test]
fn schema_is_generated_from_the_pinned_release() {
    let package: Value = serde_json::from_str(include_str!("../schema/package.json")).unwrap();
    let release = package["dependencies"]["@grafana/schema"].as_str().unwrap();
    assert!(schema()["$comment"].as_str().unwrap().contains(&format!("@grafana/schema {release}.")));
}

#[test]
fn invalid_dashboards_are_rejected() {
    let (schema, valid) = (schema(), committed(Dashboard::Fleet));
    let error_after = |change: &dyn Fn(&mut Value)| {
        let mut changed = valid.clone();
        change(&mut changed);
        check(&changed, &schema, "it").err()
    };
    assert_eq!(error_after(&|_| {}), None);
    let panel = valid["panels"].as_array().unwrap().iter().position(|it| it["type"] == "timeseries").unwrap();
    for change in [
        &|it: &mut Value| it["schemaVersion"] = json!("39"),
        &|it: &mut Value| it["panles"] = json!([]),
        &|it: &mut Value| _ = it.as_object_mut().unwrap().remove("panels"),
        &|it: &mut Value| it["graphTooltip"] = json!(7),
        &|it: &mut Value| it["panels"][panel]["type"] = json!("graph"),
        &|it: &mut Value| it["panels"][panel]["options"]["legend"]["placement"] = json!("left"),
        &|it: &mut Value| it["panels"][panel]["fieldConfig"]["defaults"]["custom"]["fillOpacty"] = json!(1),
        &|it: &mut Value| it["panels"][panel]["targets"][0]["exemplar"] = json!("yes"),
        &|it: &mut Value| it["panels"][0]["panels"] = json!([valid["panels"][panel]]),
        &|it: &mut Value| it["templating"]["list"][1]["refresh"] = json!(3),
    ] as [&dyn Fn(&mut Value); 10]
    {
        assert!(error_after(change).is_some());
    }
    assert!(check(&json!(1), &json!({ "type": "number", "multipleOf": 2 }), "it").is_err(), "unsupported keywords");
    assert!(check(&json!([]), &json!({ "minItems": 1 }), "it").is_err());
    assert!(check(&json!(1), &json!({ "not": { "type": "number" } }), "it").is_err());
}
