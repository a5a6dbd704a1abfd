// The type of a dashboard in this repository: Grafana's types, with the options of each panel type and the queries of the
// Prometheus data source. `make schema` turns it into dashboard.schema.json.
import type {
  AnnotationQuery,
  Dashboard,
  DataSourceRef,
  FieldConfig,
  FieldConfigSource,
  Panel,
  RowPanel,
} from '@grafana/schema';
import type { Options as BarGaugeOptions } from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type { Options as StatOptions } from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type {
  FieldConfig as StateTimelineFieldConfig,
  Options as StateTimelineOptions,
} from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type {
  FieldConfig as TableFieldConfig,
  Options as TableOptions,
} from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type {
  FieldConfig as TimeSeriesFieldConfig,
  Options as TimeSeriesOptions,
} from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

/** A query of the Prometheus data source. @grafana/schema leaves queries open. */
interface Query {
  datasource: DataSourceRef;
  editorMode: 'code';
  exemplar: boolean;
  expr: string;
  format: 'time_series' | 'table';
  instant: boolean;
  legendFormat: string;
  range: boolean;
  refId: string;
}

/** An annotation with the text options of the Prometheus data source. */
interface Annotation extends Omit<AnnotationQuery, 'target'> {
  tagKeys?: string;
  target: { expr: string; interval?: string; refId: string };
  textFormat?: string;
  titleFormat?: string;
  useValueForTime?: boolean;
}

/** The field options of a panel. Grafana's types leave overrides open; the test validates them. */
interface Fields<Custom> extends Omit<FieldConfigSource, 'defaults'> {
  defaults: Omit<FieldConfig, 'custom'> & { custom?: Partial<Custom> };
}

type Of<Type extends string, Options, Custom> = Omit<Panel, 'datasource' | 'fieldConfig' | 'options' | 'targets' | 'type'> & {
  datasource: DataSourceRef;
  fieldConfig: Fields<Custom>;
  options: Options;
  targets: Query[];
  type: Type;
};

type Drawn =
  | Of<'bargauge', BarGaugeOptions, Record<string, never>>
  | Of<'stat', StatOptions, Record<string, never>>
  | Of<'state-timeline', StateTimelineOptions, StateTimelineFieldConfig>
  | Of<'table', TableOptions, TableFieldConfig>
  | Of<'timeseries', TimeSeriesOptions, TimeSeriesFieldConfig>;

/** Panels follow an open row, and are within a collapsed one. Grafana opens that row for a link to one of them. */
type Row =
  | (Omit<RowPanel, 'collapsed' | 'datasource' | 'panels'> & { collapsed: false; panels: [] })
  | (Omit<RowPanel, 'collapsed' | 'datasource' | 'panels'> & { collapsed: true; panels: Drawn[] });

export type Checked = Omit<Dashboard, 'annotations' | 'panels'> & {
  annotations: { list: Annotation[] };
  panels: Array<Drawn | Row>;
};
