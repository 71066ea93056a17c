-- order_read_decisions: a vendor's decisions as an object, {line_item_id: {accept_qty, reason, place}}; each line once. The place is that in the list, from 0.

create or replace function order_read_decisions(decisions jsonb)
returns jsonb
language plpgsql
stable
as $$
declare
  v_given constant jsonb := coalesce(nullif(order_read_decisions.decisions, 'null'), '[]');
  v_decisions jsonb;
  v_decision record;
  v_field text;
begin
  if jsonb_typeof(v_given) <> 'array' then
    perform checkout_raise_invalid('decisions', 'must be a list, or null to accept the order whole');
  elsif jsonb_array_length(v_given) > 10000 then
    perform checkout_raise_invalid('decisions', 'must be at most 10000');
  end if;

  -- a loop, because each is checked on its own
  for v_decision in select each.value as said, each.ordinality - 1 as place from jsonb_array_elements(v_given) with ordinality as each loop
    v_field := format('decisions[%s]', v_decision.place);
    if jsonb_typeof(v_decision.said) <> 'object' then
      perform checkout_raise_invalid(v_field, 'must be an object with line_item_id, accept_qty and reason');
    elsif exists (select from jsonb_object_keys(v_decision.said) as member (name) where member.name not in ('line_item_id', 'accept_qty', 'reason')) then
      perform checkout_raise_invalid(v_field, 'must have line_item_id, accept_qty and reason alone');
    elsif (v_decision.said ->> 'line_item_id' ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$') is not true then
      perform checkout_raise_invalid(v_field || '.line_item_id', 'must be a UUID');
    elsif (jsonb_typeof(v_decision.said -> 'accept_qty') = 'number' and v_decision.said ->> 'accept_qty' ~ '^[0-9]{1,9}$') is not true then
      perform checkout_raise_invalid(v_field || '.accept_qty', 'must be a whole number from 0');
    elsif jsonb_typeof(v_decision.said -> 'reason') not in ('string', 'null') then
      perform checkout_raise_invalid(v_field || '.reason', 'must be a text');
    elsif v_decision.said ->> 'reason' is not null then
      perform order_check_reason(v_decision.said ->> 'reason', v_field || '.reason');
    end if;
  end loop;
  select coalesce(jsonb_object_agg(lower(each.value ->> 'line_item_id'), each.value - 'line_item_id' || jsonb_build_object('place', each.ordinality - 1)), '{}')
    into v_decisions
    from jsonb_array_elements(v_given) with ordinality as each;
  if (select count(*) from jsonb_object_keys(v_decisions)) <> jsonb_array_length(v_given) then
    perform checkout_raise_invalid('decisions', 'must name each line once');
  end if;
  return v_decisions;
end;
$$;

revoke execute on function order_read_decisions(jsonb) from public;

comment on function order_read_decisions(jsonb) is
  'Step of vendor_order_decide: a list of {line_item_id, accept_qty, reason} as an object by line, each with its place in the list. '
  'Raises OC005 for anything else, and for a line that is named twice.';
