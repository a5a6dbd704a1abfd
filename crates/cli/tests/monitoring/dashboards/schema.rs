//! The dashboards against Grafana's own types: `crates/cli/tests/monitoring/schema/dashboard.schema.json` is made from those of
//! `@grafana/schema` by `make schema`, which also has another validator look at the dashboards.

use poolscope_cli::monitoring::dashboards::Dashboard;
use serde_json::{Value, json};

use super::{committed, panels};

const SCHEMA: &str = include_str!("../schema/dashboard.schema.json");

/// What is wrong with the value, first of all; by the words of JSON Schema that the generator uses, and no others.
fn check(value: &Value, schema: &Value, at: &str) -> Result<(), String> {
    for (word, says) in schema.as_object().ok_or("a schema is an object")? {
        match word.as_str() {
            "type" => {
                let types = says.as_array().map_or_else(|| vec![says], |types| types.iter().collect());
                if !types.iter().any(|it| is_a(value, it)) {
                    return Err(format!("{at} is {value}, and not a {says}"));
                }
            }
            "const" if value != says => return Err(format!("{at} is {value}, and not {says}")),
            "enum" if !says.as_array().ok_or("enum")?.contains(value) => {
                return Err(format!("{at} is {value}, and none of {says}"));
            }
            "required" => {
                let missing = says.as_array().ok_or("required")?.iter().filter_map(Value::as_str);
                if let Some(name) = missing.filter(|_| value.is_object()).find(|name| value.get(name).is_none()) {
                    return Err(format!("{at} has no {name}"));
                }
            }
            "properties" => {
                for (name, schema) in says.as_object().ok_or("properties")? {
                    value.get(name).map_or(Ok(()), |value| check(value, schema, &format!("{at}.{name}")))?;
                }
            }
            "additionalProperties" => {
                let known = |name: &str| schema["properties"].get(name).is_some();
                let others = value.as_object().into_iter().flatten().filter(|(name, _)| !known(name));
                for (name, value) in others {
                    match says {
                        Value::Bool(true) => {}
                        Value::Bool(false) => return Err(format!("{at} cannot have {name}")),
                        schema => check(value, schema, &format!("{at}.{name}"))?,
                    }
                }
            }
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    check(value, says, &format!("{at}[{index}]"))?;
                }
            }
            "minItems" | "maxItems" => {
                let (many, limit) = (value.as_array().map(|it| it.len() as u64), says.as_u64());
                if many.is_some() && if word == "minItems" { many < limit } else { many > limit } {
                    return Err(format!("{at} has {many:?} items, with {word} {says}"));
                }
            }
            "anyOf" => {
                let mut problems = Vec::new();
                for schema in says.as_array().ok_or("anyOf")? {
                    problems.extend(check(value, schema, at).err());
                }
                if problems.len() == says.as_array().map_or(0, Vec::len) {
                    return Err(format!("{at} is nothing that it may be: {}", problems.join("; or ")));
                }
            }
            "not" if check(value, says, at).is_ok() => return Err(format!("{at} is {value}, which it may not be")),
            "const" | "enum" | "not" | "$comment" | "$schema" | "definitions" => {}
            unknown => return Err(format!("the schema says {unknown}, which is not understood")),
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

/// What the schema says of panels of a type.
fn of_type<'a>(schema: &'a Value, plugin: &Value) -> &'a Value {
    let kinds = schema["properties"]["panels"]["items"]["anyOf"].as_array().unwrap();
    kinds.iter().find(|kind| kind["properties"]["type"]["const"] == *plugin).unwrap()
}

#[test]
fn every_dashboard_is_what_grafana_reads() {
    let schema = schema();
    for dashboard in Dashboard::ALL {
        let json = committed(dashboard);
        // Panel by panel first, as that says best what is wrong.
        for panel in json["panels"].as_array().unwrap() {
            check(panel, of_type(&schema, &panel["type"]), &format!("{}", panel["title"])).unwrap();
        }
        check(&json, &schema, dashboard.file()).unwrap();
    }
}

#[test]
fn every_override_sets_what_a_field_of_its_panel_has() {
    let schema = schema();
    for dashboard in Dashboard::ALL {
        for panel in panels(&committed(dashboard)) {
            let fields = &of_type(&schema, &panel["type"])["properties"]["fieldConfig"]["properties"]["defaults"];
            for property in panel["fieldConfig"]["overrides"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|it| it["properties"].as_array().unwrap())
            {
                let id = property["id"].as_str().unwrap();
                let of = match id.strip_prefix("custom.") {
                    Some(own) => &fields["properties"]["custom"]["properties"][own],
                    None => &fields["properties"][id],
                };
                assert!(of.is_object(), "{}: a field has no {id}", panel["title"]);
                check(&property["value"], of, &format!("{}, {id}", panel["title"])).unwrap();
            }
        }
    }
}

#[test]
fn the_schema_is_made_of_the_release_that_is_named() {
    let package: Value = serde_json::from_str(include_str!("../schema/package.json")).unwrap();
    let release = package["dependencies"]["@grafana/schema"].as_str().unwrap();
    assert!(schema()["$comment"].as_str().unwrap().contains(&format!("@grafana/schema {release}.")));
}

#[test]
fn what_grafana_would_not_read_is_found() {
    let (schema, good) = (schema(), committed(Dashboard::Fleet));
    let spoiled = |spoil: &dyn Fn(&mut Value)| {
        let mut bad = good.clone();
        spoil(&mut bad);
        check(&bad, &schema, "it").err()
    };
    assert_eq!(spoiled(&|_| {}), None);
    let panel = good["panels"].as_array().unwrap().iter().position(|it| it["type"] == "timeseries").unwrap();
    for spoil in [
        &|it: &mut Value| it["schemaVersion"] = json!("39"),
        &|it: &mut Value| it["panles"] = json!([]),
        &|it: &mut Value| _ = it.as_object_mut().unwrap().remove("panels"),
        &|it: &mut Value| it["graphTooltip"] = json!(7),
        &|it: &mut Value| it["panels"][panel]["type"] = json!("graph"),
        &|it: &mut Value| it["panels"][panel]["options"]["legend"]["placement"] = json!("left"),
        &|it: &mut Value| it["panels"][panel]["fieldConfig"]["defaults"]["custom"]["fillOpacty"] = json!(1),
        &|it: &mut Value| it["panels"][panel]["targets"][0]["exemplar"] = json!("yes"),
        &|it: &mut Value| it["panels"][0]["panels"] = json!([good["panels"][panel]]),
        &|it: &mut Value| it["templating"]["list"][1]["refresh"] = json!(3),
    ] as [&dyn Fn(&mut Value); 10]
    {
        assert!(spoiled(spoil).is_some());
    }
    assert!(
        check(&json!(1), &json!({ "type": "number", "multipleOf": 2 }), "it").is_err(),
        "words that are not understood"
    );
    assert!(check(&json!([]), &json!({ "minItems": 1 }), "it").is_err());
    assert!(check(&json!(1), &json!({ "not": { "type": "number" } }), "it").is_err());
}
