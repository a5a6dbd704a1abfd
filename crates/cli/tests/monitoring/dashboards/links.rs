//! Links between dashboards, to panels, and from alerts.

use poolscope_cli::monitoring::Thresholds;
use poolscope_cli::monitoring::dashboards::{Dashboard, PanelId};
use poolscope_cli::monitoring::rules::alerts::alerts;
use poolscope_cli::monitoring::rules::{Links, annotations};
use serde_json::json;

use super::render::property;
use super::{committed, each_panel, panels};

#[test]
fn links_keep_time_range_and_variables() {
    let mut count = 0;
    for dashboard in Dashboard::ALL {
        let json = committed(dashboard);
        let links = json["links"].as_array().unwrap();
        assert_eq!(links.len(), 1);
        assert_eq!((&links[0]["type"], &links[0]["keepTime"]), (&json!("dashboards"), &json!(true)));
        assert_eq!(links[0]["includeVars"], true);
        assert!(json["tags"].as_array().unwrap().contains(&links[0]["tags"][0]), "dashboards are found by tag");
    }
    each_panel(|panel, at| {
        let links = panel["fieldConfig"]["defaults"]["links"].as_array().map(Vec::as_slice).unwrap_or_default();
        for link in links {
            let url = link["url"].as_str().unwrap();
            let (path, query) = url.split_once('?').unwrap();
            let uid = path.strip_prefix("/d/").unwrap();
            let target = Dashboard::ALL.into_iter().find(|dashboard| dashboard.uid() == uid).unwrap();
            let number = query.strip_prefix("${__url_time_range}&${__all_variables}&viewPanel=").unwrap();
            let number: u32 = number.parse().unwrap();
            let exists = panels(&committed(target)).any(|it| it["id"] == number);
            assert!(exists, "{at}: {url}");
            count += 1;
        }
    });
    assert!(count >= 10, "{count}");
    let fleet = committed(Dashboard::Fleet);
    let table = panels(&fleet).find(|it| it["id"] == PanelId::TopPools.number()).unwrap();
    let url = property(table, "Pool", "links").unwrap()[0]["url"].as_str().unwrap();
    assert!(url.starts_with("/d/poolscope-pool?${__url_time_range}&var-datasource=${datasource}&var-job="), "{url}");
    for variable in ["job", "instance", "pool"] {
        assert!(url.contains(&format!("&var-{variable}=${{__data.fields.")), "{url}");
    }
}

#[test]
fn alerts_link_to_existing_panels() {
    let thresholds = Thresholds::committed().unwrap();
    let all = alerts(&thresholds);
    assert!(all.len() > 20);
    for alert in all {
        let id = alert.panel;
        assert!(panels(&committed(id.dashboard())).any(|panel| panel["id"] == id.number()), "{id:?}");
        let annotations = annotations(&alert, &Links::of_compose());
        let (_, url) = annotations.last().unwrap();
        assert!(url.contains(&format!("/d/{}?", id.dashboard().uid())), "{url}");
        assert!(url.ends_with(&format!("&viewPanel={}", id.number())), "{url}");
    }
}
