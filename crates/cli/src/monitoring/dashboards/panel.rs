//! Builds a panel: its queries and how they are drawn.

use serde_json::{Map, Value, json};

use super::panel_id::PanelId;
use super::unit::Unit;
use crate::monitoring::thresholds::Threshold;

/// The color of values without a verdict.
pub(super) const NEUTRAL: &str = "text";
pub(super) const WARNING: &str = "orange";
pub(super) const CRITICAL: &str = "red";

/// The minimum width of a graph with its legend as a table on the right.
const LEGEND_TABLE_MIN_WIDTH: u32 = 12;

/// The description of a panel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Description {
    /// The content, with its unit where that is not obvious.
    pub(super) shows: &'static str,
    /// What is normal, and what other values mean.
    pub(super) normal: &'static str,
    /// What to do otherwise.
    pub(super) action: &'static str,
}

/// The type of a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Lines,
    Stat,
    Bars,
    Table,
    StateTimeline,
}

impl Kind {
    const fn plugin(self) -> &'static str {
        match self {
            Self::Lines => "timeseries",
            Self::Stat => "stat",
            Self::Bars => "bargauge",
            Self::Table => "table",
            Self::StateTimeline => "state-timeline",
        }
    }
}

/// A panel under construction.
#[derive(Clone, Debug)]
pub(super) struct PanelBuilder {
    id: PanelId,
    kind: Kind,
    title: &'static str,
    description: Description,
    unit: Unit,
    pub(super) width: u32,
    pub(super) height: u32,
    queries: Vec<Value>,
    /// Field options that overrides may replace.
    defaults: Map<String, Value>,
    custom: Map<String, Value>,
    options: Map<String, Value>,
    overrides: Vec<Value>,
    transformations: Vec<Value>,
    legend_table: bool,
    stacked: bool,
}

impl PanelBuilder {
    /// Creates a graph of lines over time, with the legend below.
    pub(super) fn lines(id: PanelId, title: &'static str, description: Description) -> Self {
        let mut panel = Self::new(Kind::Lines, id, title, description, (8, 8));
        panel.custom = object(json!({
            "drawStyle": "line",
            "fillOpacity": 8,
            "lineInterpolation": "linear",
            "lineWidth": 1,
            "showPoints": "auto",
            "spanNulls": false,
            "stacking": { "group": "A", "mode": "none" },
            "thresholdsStyle": { "mode": "off" },
        }));
        panel.options = object(json!({
            "legend": { "calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": true },
            "tooltip": { "hideZeros": true, "mode": "multi", "sort": "desc" },
        }));
        panel.default("color", json!({ "mode": "palette-classic" }))
    }

    /// Creates a single number over a sparkline.
    pub(super) fn stat(id: PanelId, title: &'static str, description: Description) -> Self {
        let mut panel = Self::new(Kind::Stat, id, title, description, (4, 4));
        panel.options = object(json!({
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
        panel.default("color", json!({ "mode": "thresholds" }))
    }

    /// Creates a bar for the last value of each series.
    pub(super) fn bars(id: PanelId, title: &'static str, description: Description) -> Self {
        let mut panel = Self::new(Kind::Bars, id, title, description, (8, 8));
        panel.options = object(json!({
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
        panel.default("color", json!({ "mode": "thresholds" }))
    }

    /// Creates a table.
    pub(super) fn table(id: PanelId, title: &'static str, description: Description) -> Self {
        let mut panel = Self::new(Kind::Table, id, title, description, (24, 10));
        panel.custom = object(
            json!({ "align": "auto", "cellOptions": { "type": "auto" }, "filterable": false, "inspect": false, "minWidth": 90 }),
        );
        panel.options = object(json!({ "cellHeight": "sm", "frameIndex": 0, "showHeader": true }));
        panel.default("color", json!({ "mode": "thresholds" }))
    }

    /// Creates a row of bars for each series, where it has samples.
    pub(super) fn state_timeline(id: PanelId, title: &'static str, description: Description) -> Self {
        let mut panel = Self::new(Kind::StateTimeline, id, title, description, (24, 6));
        panel.custom = object(json!({ "fillOpacity": 80, "lineWidth": 0 }));
        panel.options = object(json!({
            "alignValue": "left",
            "legend": { "calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": false },
            "mergeValues": true,
            "rowHeight": 0.8,
            "showValue": "never",
            "tooltip": { "hideZeros": false, "mode": "single", "sort": "none" },
        }));
        panel.default("color", json!({ "mode": "thresholds" }))
    }

    fn new(
        kind: Kind,
        id: PanelId,
        title: &'static str,
        description: Description,
        (width, height): (u32, u32),
    ) -> Self {
        let panel = Self {
            id,
            kind,
            title,
            description,
            unit: Unit::Count,
            width,
            height,
            queries: Vec::new(),
            defaults: Map::new(),
            custom: Map::new(),
            options: Map::new(),
            overrides: Vec::new(),
            transformations: Vec::new(),
            legend_table: false,
            stacked: false,
        };
        let base = json!({ "mode": "absolute", "steps": [{ "color": NEUTRAL, "value": null }] });
        panel.default("min", json!(0)).default("noValue", json!("–")).default("thresholds", base)
    }

    pub(super) fn size(mut self, width: u32, height: u32) -> Self {
        (self.width, self.height) = (width, height);
        self
    }

    pub(super) fn unit(mut self, unit: Unit) -> Self {
        self.unit = unit;
        self
    }

    /// Adds a query over time.
    pub(super) fn query(self, expression: impl Into<String>, legend: &str) -> Self {
        self.add_query(&expression.into(), legend, false)
    }

    /// Adds a query at the end of the time range.
    pub(super) fn instant_query(self, expression: impl Into<String>, legend: &str) -> Self {
        self.add_query(&expression.into(), legend, true)
    }

    fn add_query(mut self, expression: &str, legend: &str, instant: bool) -> Self {
        // Histograms have exemplars, which Grafana draws as points with a link to the trace.
        let exemplars = !instant && self.kind == Kind::Lines && expression.contains("_bucket{");
        self.queries.push(json!({
            "datasource": datasource(),
            "editorMode": "code",
            "exemplar": exemplars,
            "expr": expression,
            "format": if self.kind == Kind::Table { "table" } else { "time_series" },
            "instant": instant,
            "legendFormat": legend,
            "range": !instant,
            "refId": ref_id(self.queries.len()),
        }));
        self
    }

    /// Stacks the series.
    pub(super) fn stacked(mut self) -> Self {
        self.stacked = true;
        self.custom.insert("stacking".to_owned(), json!({ "group": "A", "mode": "normal" }));
        self.custom.insert("fillOpacity".to_owned(), json!(70));
        // Otherwise series of zero are drawn as lines on top of the others.
        self.custom.insert("lineWidth".to_owned(), json!(0));
        self
    }

    /// Shows the legend as a table on the right, the largest series first, if the panel is wide enough.
    pub(super) fn legend_table(mut self) -> Self {
        self.legend_table = true;
        self
    }

    /// Sets the minimum extent of the axis, so that a constant zero is drawn at the bottom.
    pub(super) fn soft_max(mut self, value: f64) -> Self {
        self.custom.insert("axisSoftMax".to_owned(), json!(value));
        self
    }

    /// Draws a series as a limit: a dashed line that is not stacked.
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

    /// Sets the colors of series.
    pub(super) fn colors(self, colors: &[(&str, &str)]) -> Self {
        colors.iter().fold(self, |panel, (name, color)| {
            panel.field(name, &[("color", json!({ "fixedColor": color, "mode": "fixed" }))])
        })
    }

    /// Overrides properties of a field.
    pub(super) fn field(mut self, name: &str, properties: &[(&str, Value)]) -> Self {
        let properties: Vec<_> = properties.iter().map(|(id, value)| json!({ "id": id, "value": value })).collect();
        self.overrides.push(json!({ "matcher": { "id": "byName", "options": name }, "properties": properties }));
        self
    }

    /// Colors values from the threshold on. In a graph, the threshold is a dashed line.
    pub(super) fn threshold(mut self, color: &str, threshold: &Threshold) -> Self {
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

    /// Colors values from 1 on, for counts that should be zero.
    pub(super) fn nonzero(self, color: &str) -> Self {
        self.step(color, 1.0)
    }

    /// Sets the maximum of a share to 100 %.
    pub(super) fn full_scale(self) -> Self {
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

    /// Links to another panel with the same time range and variables.
    pub(super) fn link_to(self, panel: PanelId, title: &str) -> Self {
        let url = format!("{}?${{__url_time_range}}&${{__all_variables}}&viewPanel={}", panel.path(), panel.number());
        self.default("links", json!([{ "targetBlank": false, "title": title, "url": url }]))
    }

    pub(super) fn default(mut self, name: &str, value: Value) -> Self {
        self.defaults.insert(name.to_owned(), value);
        self
    }

    /// Returns the panel's JSON at a position of the grid.
    pub(super) fn json(mut self, x: u32, y: u32) -> Value {
        if self.legend_table && self.width >= LEGEND_TABLE_MIN_WIDTH {
            self.options.insert("legend".to_owned(), table_legend());
        }
        if self.legend_table && !self.stacked {
            // The area below many lines has no meaning.
            self.custom.insert("fillOpacity".to_owned(), json!(0));
        }
        self.defaults.insert("unit".to_owned(), json!(self.unit.as_str()));
        if !self.custom.is_empty() {
            self.defaults.insert("custom".to_owned(), self.custom.into());
        }
        let Description { shows, normal, action } = self.description;
        let mut panel = json!({
            "datasource": datasource(),
            "description": format!("{shows}\n\n**Normal:** {normal}\n\n**Action:** {action}"),
            "fieldConfig": { "defaults": self.defaults, "overrides": self.overrides },
            "gridPos": { "h": self.height, "w": self.width, "x": x, "y": y },
            "id": self.id.number(),
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

/// Returns a legend as a table on the right, the largest series first.
fn table_legend() -> Value {
    json!({
        "calcs": ["mean", "max"],
        "displayMode": "table",
        "placement": "right",
        "showLegend": true,
        "sortBy": "Mean",
        "sortDesc": true,
    })
}

/// Returns the data source selected by the dashboard's variable.
pub(super) fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// Returns the `refId` of a panel's query: A, B, C …
pub(super) fn ref_id(index: usize) -> String {
    char::from(b'A' + u8::try_from(index % 26).unwrap_or_default()).to_string()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
