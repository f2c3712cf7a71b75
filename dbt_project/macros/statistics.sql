{# Shares and their uncertainty: of counts and of seconds, never of money. #}

{# A part of a whole, from 0 to 1; NULL of nothing. #}
{% macro share(part, whole) -%}
    (cast({{ part }} as double) / nullif({{ whole }}, 0))
{%- endmacro %}

{# A quotient as a count. Of an interval next to nothing the quotient is beyond every integer; a billion says it all. #}
{% macro bounded_count(quotient) -%}
    cast(least({{ quotient }}, 1000000000) as bigint)
{%- endmacro %}

{# The lower or upper end of Wilson's 95 % interval of a share (E. B. Wilson, 1927): unlike the plain one it neither
   leaves 0 to 1 nor calls one success out of one certain. `end` is -1 or +1. #}
{% macro wilson(part, whole, end) -%}
    {%- set z = 1.959963984540054 -%}
    case
        when {{ whole }} > 0 then
            least(1, greatest(0,
                ({{ share(part, whole) }} + {{ z * z / 2 }} / {{ whole }}
                    + {{ end }} * {{ z }} * sqrt(
                        {{ share(part, whole) }} * (1 - {{ share(part, whole) }}) / {{ whole }}
                        + {{ z * z / 4 }} / ({{ whole }} * {{ whole }})
                    ))
                / (1 + {{ z * z }} / {{ whole }})
            ))
    end
{%- endmacro %}

{# What kind of work a run is, by the tool it used most: version 1. A tool that a customer named tells nothing. #}
{% macro task_class(tool_name) -%}
    case
        when {{ tool_name }} is null then 'talk'
        when {{ tool_name }} like 'k1\_%' escape '\' then 'custom'
        when {{ tool_name }} like 'browser%' then 'browser'
        when {{ tool_name }} like 'web%' or {{ tool_name }} like 'search%' or {{ tool_name }} like '%\_search' escape '\'
            then 'research'
        when {{ tool_name }} like 'terminal%' or {{ tool_name }} like 'execute%' or {{ tool_name }} like 'run\_%' escape '\'
            or {{ tool_name }} like 'bash%' then 'terminal'
        when {{ tool_name }} like '%file%' or {{ tool_name }} like 'edit%' or {{ tool_name }} like '%directory%'
            or {{ tool_name }} like 'grep%' or {{ tool_name }} like '%\_patch' escape '\' then 'files'
        when {{ tool_name }} like '%mail%' or {{ tool_name }} like '%message%' or {{ tool_name }} like 'slack%' then 'messages'
        when {{ tool_name }} like '%csv%' or {{ tool_name }} like '%sql%' or {{ tool_name }} like '%data%' then 'data'
        else 'other'
    end
{%- endmacro %}
