//! A panel: what it asks, and how the answer is drawn.

use serde_json::{Map, Value, json};

use super::panels::{Panel, panel_id};
use super::unit::Unit;
use crate::monitoring::Threshold;

/// What is drawn in no colour of its own, and so says neither well nor ill.
pub(super) const NEUTRAL: &str = "text";
pub(super) const WARNING: &str = "orange";
pub(super) const CRITICAL: &str = "red";

/// From this width on a graph has room beside it for a list of its series.
const LISTED_FROM: u32 = 12;

/// What a panel means, what bad looks like in it, and what to do then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Says {
    pub(super) means: &'static str,
    pub(super) bad: &'static str,
    pub(super) cure: &'static str,
}

/// How a panel draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Lines,
    Stat,
    Bars,
    Table,
}

impl Kind {
    const fn plugin(self) -> &'static str {
        match self {
            Self::Lines => "timeseries",
            Self::Stat => "stat",
            Self::Bars => "bargauge",
            Self::Table => "table",
        }
    }
}

/// A panel that is being made.
#[derive(Clone, Debug)]
pub(super) struct Drawing {
    panel: Panel,
    kind: Kind,
    title: &'static str,
    says: Says,
    unit: Unit,
    pub(super) width: u32,
    pub(super) height: u32,
    queries: Vec<Value>,
    /// Fields, as the panel has them unless an override says otherwise.
    defaults: Map<String, Value>,
    custom: Map<String, Value>,
    options: Map<String, Value>,
    overrides: Vec<Value>,
    transformations: Vec<Value>,
    listed: bool,
    stacked: bool,
}

impl Drawing {
    /// Lines over time, with a list of them below.
    pub(super) fn lines(panel: Panel, title: &'static str, says: Says) -> Self {
        let mut drawing = Self::new(Kind::Lines, panel, title, says, (8, 8));
        drawing.custom = object(json!({
            "drawStyle": "line",
            "fillOpacity": 8,
            "lineInterpolation": "linear",
            "lineWidth": 1,
            "showPoints": "auto",
            "spanNulls": false,
            "stacking": { "group": "A", "mode": "none" },
            "thresholdsStyle": { "mode": "off" },
        }));
        drawing.options = object(json!({
            "legend": { "calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": true },
            "tooltip": { "hideZeros": true, "mode": "multi", "sort": "desc" },
        }));
        drawing.default("color", json!({ "mode": "palette-classic" }))
    }

    /// One number, as large as it fits, over the course it took.
    pub(super) fn stat(panel: Panel, title: &'static str, says: Says) -> Self {
        let mut drawing = Self::new(Kind::Stat, panel, title, says, (4, 4));
        drawing.options = object(json!({
            "colorMode": "value",
            "graphMode": "area",
            "justifyMode": "auto",
            "orientation": "auto",
            "percentChangeColorMode": "standard",
            "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
            "showPercentChange": false,
            "text": { "valueSize": 32 },
            "textMode": "value",
            "wideLayout": true,
        }));
        drawing.default("color", json!({ "mode": "thresholds" }))
    }

    /// A bar for each series, with the last of its values.
    pub(super) fn bars(panel: Panel, title: &'static str, says: Says) -> Self {
        let mut drawing = Self::new(Kind::Bars, panel, title, says, (8, 8));
        drawing.options = object(json!({
            "displayMode": "basic",
            "legend": { "calcs": [], "displayMode": "hidden", "placement": "bottom", "showLegend": false },
            "maxVizHeight": 44,
            "minVizHeight": 28,
            "minVizWidth": 8,
            "namePlacement": "top",
            "orientation": "horizontal",
            "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
            "showUnfilled": true,
            "sizing": "manual",
            "text": { "titleSize": 13, "valueSize": 13 },
            "valueMode": "text",
        }));
        drawing.default("color", json!({ "mode": "thresholds" }))
    }

    /// A row for each thing, with a column for each question.
    pub(super) fn table(panel: Panel, title: &'static str, says: Says) -> Self {
        let mut drawing = Self::new(Kind::Table, panel, title, says, (24, 10));
        drawing.custom = object(
            json!({ "align": "auto", "cellOptions": { "type": "auto" }, "filterable": false, "inspect": false, "minWidth": 90 }),
        );
        drawing.options = object(json!({ "cellHeight": "sm", "frameIndex": 0, "showHeader": true }));
        drawing.default("color", json!({ "mode": "thresholds" }))
    }

    fn new(kind: Kind, panel: Panel, title: &'static str, says: Says, (width, height): (u32, u32)) -> Self {
        let drawing = Self {
            panel,
            kind,
            title,
            says,
            unit: Unit::Count,
            width,
            height,
            queries: Vec::new(),
            defaults: Map::new(),
            custom: Map::new(),
            options: Map::new(),
            overrides: Vec::new(),
            transformations: Vec::new(),
            listed: false,
            stacked: false,
        };
        let base = json!({ "mode": "absolute", "steps": [{ "color": NEUTRAL, "value": null }] });
        drawing.default("min", json!(0)).default("noValue", json!("–")).default("thresholds", base)
    }

    pub(super) fn size(mut self, width: u32, height: u32) -> Self {
        (self.width, self.height) = (width, height);
        self
    }

    pub(super) fn unit(mut self, unit: Unit) -> Self {
        self.unit = unit;
        self
    }

    /// Asks for something over time, and names its series.
    pub(super) fn asks(self, expression: impl Into<String>, legend: &str) -> Self {
        self.query(&expression.into(), legend, false)
    }

    /// Asks for something as it is at the end of the time that is shown; of a table, for a column.
    pub(super) fn asks_now(self, expression: impl Into<String>, legend: &str) -> Self {
        self.query(&expression.into(), legend, true)
    }

    fn query(mut self, expression: &str, legend: &str, now: bool) -> Self {
        // Of a histogram Prometheus has exemplars; Grafana draws them as points that lead to the trace.
        let exemplars = !now && self.kind == Kind::Lines && expression.contains("_bucket{");
        self.queries.push(json!({
            "datasource": datasource(),
            "editorMode": "code",
            "exemplar": exemplars,
            "expr": expression,
            "format": if self.kind == Kind::Table { "table" } else { "time_series" },
            "instant": now,
            "legendFormat": legend,
            "range": !now,
            "refId": reference(self.queries.len()),
        }));
        self
    }

    /// Draws the series on each other, as the parts of a whole.
    pub(super) fn stacked(mut self) -> Self {
        self.stacked = true;
        self.custom.insert("stacking".to_owned(), json!({ "group": "A", "mode": "normal" }));
        self.custom.insert("fillOpacity".to_owned(), json!(70));
        // What is zero would be a line in its colour on top of the others.
        self.custom.insert("lineWidth".to_owned(), json!(0));
        self
    }

    /// Lists the series in a table at the right, the largest first, where there is room for it.
    pub(super) fn listed(mut self) -> Self {
        self.listed = true;
        self
    }

    /// Has the axis reach this far at least, so that what is zero all the time lies at the bottom of something.
    pub(super) fn at_least(mut self, value: f64) -> Self {
        self.custom.insert("axisSoftMax".to_owned(), json!(value));
        self
    }

    /// Draws the series of this name as a limit: a dashed line over the others.
    pub(super) fn limit(self, name: &str, color: &str) -> Self {
        self.field(
            name,
            &[
                ("color", json!({ "fixedColor": color, "mode": "fixed" })),
                ("custom.fillOpacity", json!(0)),
                ("custom.lineStyle", json!({ "dash": [10, 8], "fill": "dash" })),
                ("custom.lineWidth", json!(2)),
                ("custom.stacking", json!({ "group": "limit", "mode": "none" })),
            ],
        )
    }

    /// Gives each of these series its colour.
    pub(super) fn colours(self, colours: &[(&str, &str)]) -> Self {
        colours.iter().fold(self, |drawing, (name, color)| {
            drawing.field(name, &[("color", json!({ "fixedColor": color, "mode": "fixed" }))])
        })
    }

    /// Says something else of the field of this name.
    pub(super) fn field(mut self, name: &str, properties: &[(&str, Value)]) -> Self {
        let properties: Vec<_> = properties.iter().map(|(id, value)| json!({ "id": id, "value": value })).collect();
        self.overrides.push(json!({ "matcher": { "id": "byName", "options": name }, "properties": properties }));
        self
    }

    /// What is at the threshold or above has its colour. In a graph the threshold is a dashed line.
    pub(super) fn above(mut self, color: &str, threshold: &Threshold) -> Self {
        self = self.step(color, threshold.value);
        if self.kind == Kind::Lines {
            self.custom.insert("thresholdsStyle".to_owned(), json!({ "mode": "dashed" }));
        }
        self
    }

    fn step(mut self, color: &str, value: f64) -> Self {
        if let Some(Value::Array(steps)) = self.defaults.get_mut("thresholds").and_then(|it| it.get_mut("steps")) {
            steps.push(json!({ "color": color, "value": value }));
        }
        self
    }

    /// Of a number of things that should not be at all, each has this colour.
    pub(super) fn any(self, color: &str) -> Self {
        self.step(color, 1.0)
    }

    /// Reads the whole range of a share, and not what it happens to have been.
    pub(super) fn up_to_one(self) -> Self {
        self.default("max", json!(1))
    }

    pub(super) fn transform(mut self, id: &str, options: &Value) -> Self {
        self.transformations.push(json!({ "id": id, "options": options }));
        self
    }

    pub(super) fn option(mut self, name: &str, value: Value) -> Self {
        self.options.insert(name.to_owned(), value);
        self
    }

    /// A click leads to another panel, of the same time and the same choice.
    pub(super) fn leads_to(self, panel: Panel, title: &str) -> Self {
        let url = format!("{}?${{__url_time_range}}&${{__all_variables}}&viewPanel={}", panel.path(), panel_id(panel));
        self.default("links", json!([{ "targetBlank": false, "title": title, "url": url }]))
    }

    pub(super) fn default(mut self, name: &str, value: Value) -> Self {
        self.defaults.insert(name.to_owned(), value);
        self
    }

    /// The panel as Grafana reads it, at its place.
    pub(super) fn json(mut self, x: u32, y: u32) -> Value {
        if self.listed && self.width >= LISTED_FROM {
            self.options.insert("legend".to_owned(), list());
        }
        if self.listed && !self.stacked {
            // What lies under many lines says nothing.
            self.custom.insert("fillOpacity".to_owned(), json!(0));
        }
        self.defaults.insert("unit".to_owned(), json!(self.unit.as_str()));
        if !self.custom.is_empty() {
            self.defaults.insert("custom".to_owned(), self.custom.into());
        }
        let mut panel = json!({
            "datasource": datasource(),
            "description": format!("{}\n\n**Bad:** {}\n\n**Do:** {}", self.says.means, self.says.bad, self.says.cure),
            "fieldConfig": { "defaults": self.defaults, "overrides": self.overrides },
            "gridPos": { "h": self.height, "w": self.width, "x": x, "y": y },
            "id": panel_id(self.panel),
            "options": self.options,
            "targets": self.queries,
            "title": self.title,
            "type": self.kind.plugin(),
        });
        if !self.transformations.is_empty() {
            panel["transformations"] = self.transformations.into();
        }
        panel
    }
}

/// Series in a table at the right, the largest first.
fn list() -> Value {
    json!({
        "calcs": ["mean", "max"],
        "displayMode": "table",
        "placement": "right",
        "showLegend": true,
        "sortBy": "Mean",
        "sortDesc": true,
    })
}

/// The data source that the dashboard's variable names.
pub(super) fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// By what a panel's queries are told apart: A, B, C …
pub(super) fn reference(index: usize) -> String {
    char::from(b'A' + u8::try_from(index % 26).unwrap_or_default()).to_string()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
