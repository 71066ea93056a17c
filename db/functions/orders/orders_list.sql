-- orders_list: the orders of a buyer or of a vendor, newest first, a page at a time.
--
-- A page begins where the last one ended (created_at, id), not at a number of rows: what is ordered meanwhile moves nothing, and
-- the last page costs as much as the first. The index of the buyer, or of the vendor, is read from there on. One order
-- more than the page holds is read, to know whether another page comes.
--
-- A number and a purchase order have an index each, which knows no stores: of what it finds, the store's own is shown.

create or replace function orders_list(
  buyer_store_id uuid default null,
  vendor_store_id uuid default null,
  statuses text[] default null,
  after text default null,
  max_rows integer default 50,
  order_number bigint default null,
  purchase_order text default null
)
returns json
language plpgsql
stable
security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  v_labels constant text[] := enum_range(null::vendor_order_status)::text[];
  v_place record;
  v_orders vendor_orders[];
  v_last vendor_orders;
begin
  if num_nonnulls(orders_list.buyer_store_id, orders_list.vendor_store_id) <> 1 then
    perform checkout_raise_invalid('buyer_store_id', 'is required, or vendor_store_id is, and not both');
  elsif orders_list.max_rows is null or orders_list.max_rows not between 1 and 200 then
    perform checkout_raise_invalid('max_rows', 'must be a number from 1 to 200');
  elsif cardinality(orders_list.statuses) = 0 or not orders_list.statuses <@ v_labels then
    perform checkout_raise_invalid('statuses', 'must be null or some of ' || array_to_string(v_labels, ', '));
  elsif orders_list.order_number < 1 then
    perform checkout_raise_invalid('order_number', 'must be null or a number from 1');
  elsif length(orders_list.purchase_order) not between 1 and 100 then
    perform checkout_raise_invalid('purchase_order', 'must be null or a text of 1 to 100 characters');
  end if;
  v_place := order_read_place(orders_list.after);

  -- a statement each: what suits all plans would read all orders
  if orders_list.order_number is not null then
    select array_agg(page.own order by page.created_at desc, page.id desc) into v_orders
      from (select own, own.created_at, own.id
              from vendor_orders as own
             where own.order_number = orders_list.order_number
               and (own.buyer_store_id = orders_list.buyer_store_id or own.vendor_store_id = orders_list.vendor_store_id)
               and (orders_list.purchase_order is null or own.purchase_order = orders_list.purchase_order collate "C")
               and (own.created_at, own.id) < (v_place.created_at, v_place.id)
               and (orders_list.statuses is null or own.status::text = any (orders_list.statuses))
             order by own.created_at desc, own.id desc   -- a host's own numbers may repeat
             limit orders_list.max_rows + 1) as page;
  elsif orders_list.purchase_order is not null then
    select array_agg(page.own order by page.created_at desc, page.id desc) into v_orders
      from (select own, own.created_at, own.id
              from vendor_orders as own
             where own.purchase_order = orders_list.purchase_order collate "C"
               and (own.buyer_store_id = orders_list.buyer_store_id or own.vendor_store_id = orders_list.vendor_store_id)
               and (own.created_at, own.id) < (v_place.created_at, v_place.id)
               and (orders_list.statuses is null or own.status::text = any (orders_list.statuses))
             order by own.created_at desc, own.id desc
             limit orders_list.max_rows + 1) as page;
  elsif orders_list.buyer_store_id is not null then
    select array_agg(page.own order by page.created_at desc, page.id desc) into v_orders
      from (select own, own.created_at, own.id
              from vendor_orders as own
             where own.buyer_store_id = orders_list.buyer_store_id
               and (own.created_at, own.id) < (v_place.created_at, v_place.id)
               and (orders_list.statuses is null or own.status::text = any (orders_list.statuses))
             order by own.created_at desc, own.id desc
             limit orders_list.max_rows + 1) as page;
  else
    select array_agg(page.own order by page.created_at desc, page.id desc) into v_orders
      from (select own, own.created_at, own.id
              from vendor_orders as own
             where own.vendor_store_id = orders_list.vendor_store_id
               and (own.created_at, own.id) < (v_place.created_at, v_place.id)
               and (orders_list.statuses is null or own.status::text = any (orders_list.statuses))
             order by own.created_at desc, own.id desc
             limit orders_list.max_rows + 1) as page;
  end if;

  v_last := v_orders[orders_list.max_rows];
  return json_build_object(
    'orders', order_show(v_orders[:orders_list.max_rows], false),
    'after', case when cardinality(v_orders) > orders_list.max_rows then order_place(v_last.created_at, v_last.id) end);
end;
$$;

revoke execute on function orders_list(uuid, uuid, text[], text, integer, bigint, text) from public;

comment on function orders_list(uuid, uuid, text[], text, integer, bigint, text) is
  'The orders of a buyer, or of a vendor, newest first: {orders, after}. Each is what order_get shows, amounts in cents, without its lines '
  'but with line_count. At most max_rows of them, 1 to 200; after is null once there are no more, else what to pass for the next page, a '
  'text that means nothing else. statuses leaves out orders in other states, and a page then costs what it passes over too. order_number and '
  'purchase_order leave out all others, each found by its index; of a purchase order, other stores'' orders are passed over. Locks nothing, writes '
  'nothing. Raises OC005 unless exactly one store is given, for a state that there is not, a bad after, a number out of range, or a purchase order '
  'of other than 1 to 100 characters.';
