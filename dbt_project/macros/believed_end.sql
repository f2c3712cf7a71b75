{# Until when a run is spread over days and hours. A run whose end nobody saw is at work at its start, and not for ever;
   so is one that is longer than any run, whose clock was wrong: it would become a row for each day of two centuries. #}
{% macro believed_end(started_at, ended_at) -%}
    case
        when {{ to_micros(ended_at) }} - {{ to_micros(started_at) }} between 0 and {{ var('max_run_days') }} * 86400000000
            then {{ ended_at }}
        else {{ started_at }}
    end
{%- endmacro %}
