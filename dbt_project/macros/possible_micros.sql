{# Microseconds since 1970 of an instant that was computed, within the bounds of those that are sent (EARLIEST and LATEST
   of pipelines/contract/table.py); NULL outside. Latencies of a run add up to anything: a day that no calendar has would
   stop whoever reads it, for everybody. #}
{% macro possible_micros(micros) -%}
    case when {{ micros }} between 0 and 7258118400000000 then {{ micros }} end
{%- endmacro %}
