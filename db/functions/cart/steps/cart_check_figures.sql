-- cart_check_figures: refuses a quote whose figures or ids contradict each other, and sums the cart.
--
-- Here is what the tables would refuse in the name of a constraint, told by its place instead, and what only a quote says.
-- The rules that the checkout keeps as well stand in checkout_validate_amounts.

create or replace function cart_check_figures(cart cart_records, groups cart_vendor_groups[], items cart_items[])
returns cart_records
language plpgsql
stable
as $$
declare
  v_cart cart_records := cart_check_figures.cart;
  v_problem jsonb;
  v_subtotal numeric;
  v_total numeric;
  v_discounts numeric;
begin
  -- Without a join, of which the planner would not know how many rows it has. What a vendor who is there twice has, has no place.
  with parts as (
    select part.ordinality as group_no, 0::bigint as position, part.vendor_store_id, part.id, part.status::text as status,
           null::bigint as quantity, null::bigint as unit_price_cents, null::bigint as line_subtotal_cents,
           null::bigint as line_total_cents, null::numeric as due_cents
      from unnest(cart_check_figures.groups) with ordinality as part
     union all
    select null, item.ordinality, item.vendor_store_id, item.id, item.status::text,
           item.quantity, item.unit_price_cents, item.line_subtotal_cents,
           item.line_total_cents, item.line_subtotal_cents::numeric - coalesce(item.line_discounts_cents, 0)
      from unnest(cart_check_figures.items) with ordinality as item
  ), counted as (
    select part.*,
           min(part.group_no) over vendor as own_group_no,
           count(part.group_no) over vendor as nth_of_vendor,
           count(*) filter (where part.position > 0) over vendor as nth_item,
           row_number() over (partition by part.position > 0, part.id order by part.position, part.group_no) as nth_of_id
      from parts as part
    window vendor as (partition by part.vendor_store_id order by part.position, part.group_no)
  ), placed as (
    select part.*,
           format('cart.vendor_groups[%s]', coalesce(part.group_no, part.own_group_no) - 1)
           || case when part.position > 0 then format('.items[%s]', part.nth_item - 1) else '' end as path,
           case when part.group_no is not null and part.nth_of_vendor > 1 then '{vendor_twice,vendor_store_id}'::text[]
                when part.nth_of_id > 1 then '{id_twice,id}'
                when part.status = 'ok' and part.quantity < 1 then '{quantity,quantity}'
                when part.unit_price_cents < 0 then '{line_amounts,unit_price_cents}'
                when part.line_subtotal_cents < 0 then '{line_amounts,line_subtotal_cents}'
                when part.line_total_cents <> part.due_cents then '{line_amounts,line_total_cents}'
           end as problem
      from counted as part
  )
  select jsonb_build_object('problem', part.problem[1], 'field', part.path || '.' || part.problem[2],
                            case when part.problem[1] = 'id_twice' then 'id' when part.position > 0 then 'cart_item_id' else 'vendor_store_id' end,
                            case when part.problem[1] = 'id_twice' or part.position > 0 then part.id else part.vendor_store_id end)
         || case part.problem[2]
              when 'quantity' then jsonb_build_object('expected', 'at least 1', 'found', part.quantity)
              when 'unit_price_cents' then jsonb_build_object('expected', 'at least 0', 'found', part.unit_price_cents)
              when 'line_subtotal_cents' then jsonb_build_object('expected', 'at least 0', 'found', part.line_subtotal_cents)
              when 'line_total_cents' then jsonb_build_object('expected', part.due_cents, 'found', part.line_total_cents)
              else '{}' end
    into v_problem
    from placed as part
   where part.problem is not null
   order by part.problem[1] <> 'vendor_twice', coalesce(part.group_no, part.own_group_no), part.position
   limit 1;
  if found then
    perform cart_raise_inconsistent(v_cart.id, v_problem);
  end if;

  select coalesce(sum(part.subtotal_cents), 0), coalesce(sum(part.total_cents), 0), coalesce(sum(part.discounts_cents), 0) into v_subtotal, v_total, v_discounts
    from unnest(cart_check_figures.groups) as part
   where part.status = 'ok';
  select jsonb_build_object('problem', figure.problem, 'field', 'cart.' || figure.name, 'expected', figure.due, 'found', figure.cents)
    into v_problem
    from (values ('cart_subtotal', 'subtotal_cents', v_subtotal, v_cart.subtotal_cents),
                 ('cart_total', 'total_cents', v_total, v_cart.total_cents),
                 ('cart_discounts', 'discounts_cents', v_discounts, v_cart.discounts_cents)) as figure (problem, name, due, cents)
   where figure.cents <> figure.due
   limit 1;
  if found then
    perform cart_raise_inconsistent(v_cart.id, v_problem);
  end if;

  v_cart.subtotal_cents := v_subtotal;
  v_cart.total_cents := v_total;
  v_cart.discounts_cents := v_discounts;
  return v_cart;
exception when numeric_value_out_of_range then
  perform checkout_raise_invalid('cart.vendor_groups', 'adds up to more than an amount can hold');
  return null;   -- which never comes
end;
$$;

revoke execute on function cart_check_figures(cart_records, cart_vendor_groups[], cart_items[]) from public;

comment on function cart_check_figures(cart_records, cart_vendor_groups[], cart_items[]) is
  'Step of cart_put: the cart with its sums. Raises OC007, with the place and the figures, for a vendor or an id that is there twice, a quantity '
  'below 1, a line that does not add up, cart totals other than the sums; OC005 for a sum that is out of range.';
