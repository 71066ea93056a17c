-- order_read_decisions: a vendor's decisions as an object, {line_item_id: {accept_qty, reason}}; each line once.

create or replace function order_read_decisions(decisions jsonb)
returns jsonb
language plpgsql
stable
as $$
declare
  v_given constant jsonb := coalesce(nullif(order_read_decisions.decisions, 'null'), '[]');
  v_decisions jsonb;
  v_decision jsonb;
begin
  if jsonb_typeof(v_given) <> 'array' then
    perform checkout_raise_invalid('decisions', 'must be a list, or null to accept the order whole');
  elsif jsonb_array_length(v_given) > 10000 then
    perform checkout_raise_invalid('decisions', 'must be at most 10000');
  end if;

  -- a loop, because each is checked on its own
  for v_decision in select each.value from jsonb_array_elements(v_given) as each loop
    if jsonb_typeof(v_decision) <> 'object' then
      perform checkout_raise_invalid('decisions', 'must be objects with line_item_id, accept_qty and reason');
    elsif exists (select from jsonb_object_keys(v_decision) as member (name) where member.name not in ('line_item_id', 'accept_qty', 'reason')) then
      perform checkout_raise_invalid('decisions', 'must have line_item_id, accept_qty and reason alone');
    elsif (v_decision ->> 'line_item_id' ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$') is not true then
      perform checkout_raise_invalid('decisions', 'must each have a line_item_id that is a UUID');
    elsif (jsonb_typeof(v_decision -> 'accept_qty') = 'number' and v_decision ->> 'accept_qty' ~ '^[0-9]{1,9}$') is not true then
      perform checkout_raise_invalid('decisions', 'must each have an accept_qty that is a whole number from 0');
    elsif jsonb_typeof(v_decision -> 'reason') not in ('string', 'null') then
      perform checkout_raise_invalid('decisions', 'must have a reason that is a text');
    elsif v_decision ->> 'reason' is not null then
      perform order_check_reason(v_decision ->> 'reason');
    end if;
  end loop;
  select coalesce(jsonb_object_agg(lower(each.value ->> 'line_item_id'), each.value - 'line_item_id'), '{}') into v_decisions
    from jsonb_array_elements(v_given) as each;
  if (select count(*) from jsonb_object_keys(v_decisions)) <> jsonb_array_length(v_given) then
    perform checkout_raise_invalid('decisions', 'must name each line once');
  end if;
  return v_decisions;
end;
$$;

revoke execute on function order_read_decisions(jsonb) from public;

comment on function order_read_decisions(jsonb) is
  'Step of vendor_order_decide: a list of {line_item_id, accept_qty, reason} as an object by line. Raises OC005 for anything else, and for a line that is named twice.';
