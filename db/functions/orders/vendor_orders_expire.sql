-- vendor_orders_expire: orders whose time to pay is over end, and what they hold goes back to the shelf, once.
--
-- Orders that are stuck, since their stock cannot be given back, come first for ever: where they fill a batch, it is rolled back with
-- its locks, and the next one begins behind it.
--
-- All orders of a batch are locked before anything else of them, and all of their stock in one go: a loop that took an order, its
-- stock, and the next order would deadlock with its twin. Whoever records a payment takes the order's lock too, so that money which
-- came before keeps the order, and money which comes later is recorded on an order that has expired, and due back.

create or replace function vendor_orders_expire(max_rows integer default 100)
returns jsonb
language plpgsql
security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  v_locked record;
  v_time timestamptz := '-infinity'::timestamptz;
  v_id uuid := '00000000-0000-0000-0000-000000000000'::uuid;
  v_message text;
  v_detail text;
  v_hint text;
  v_due uuid[] := '{}'::uuid[];
  v_kept uuid[] := '{}'::uuid[];
  v_rows bigint;
begin
  if (vendor_orders_expire.max_rows between 1 and 1000) is not true then
    perform checkout_raise_invalid('max_rows', 'must be a number from 1 to 1000');
  end if;

  loop
    begin
      v_locked := order_lock_due(vendor_orders_expire.max_rows, v_time, v_id);
      exit when v_locked.last_id is null;
      v_time := v_locked.last_time;
      v_id := v_locked.last_id;
      v_due := order_still_due(v_locked.ids);
      v_kept := array(select each.id from unnest(v_locked.ids) as each (id) where each.id <> all (v_due));
      -- what must not expire now never will: it is not looked at again
      update vendor_orders as kept set expires_at = null where kept.id = any (v_kept);
      get diagnostics v_rows = row_count;
      if v_rows <> cardinality(v_kept) then
        perform checkout_raise_rows(null, 'vendor_orders', cardinality(v_kept), v_rows);
      end if;
      v_due := order_end_due(v_due, v_kept = '{}');
      exit when v_due <> '{}' or v_kept <> '{}';
    exception when sqlstate 'OC012' then
      v_due := '{}';
      v_kept := '{}';
      get stacked diagnostics v_message = message_text, v_detail = pg_exception_detail, v_hint = pg_exception_hint;
    end;
  end loop;
  if v_message is not null and v_due = '{}' and v_kept = '{}' then
    raise exception '%', v_message using errcode = 'OC012', detail = v_detail, hint = v_hint;
  end if;
  return jsonb_build_object('expired', cardinality(v_due), 'kept', cardinality(v_kept), 'order_ids', v_due);
end;
$$;

revoke execute on function vendor_orders_expire(integer) from public;

comment on function vendor_orders_expire(integer) is
  'Ends orders that are created_pending past their expires_at while nothing was paid or authorised on them: at most max_rows (1 to 1000), longest due first. Their lines are '
  'rejected, their stock is available again, their amounts (cents) and intents are 0, and one event vendor_order.expired each is written. One that is '
  'being paid, is paid, or was shipped in part loses its deadline instead and stays; one that somebody else has locked is left for '
  'the next call, and so is one whose stock cannot be given back, behind which others are looked for. Answers {expired, kept, order_ids}. Any number of callers at once. Locks orders and intents (SKIP LOCKED), their lines, then stock in (product_id, slot) order, '
  'until the commit. Raises OC005 for a number out of range, OC007 if a trigger keeps a row from being written, '
  'OC012 if nothing can be done because less stock is reserved than the lines hold, or no more fits on the shelf; 55P03, 40001 and 40P01 are safe to retry.';
