"""A New-Order after the text of the TPC-C specification (revision 5.11, clause 2.4), as one PL/pgSQL procedure.

Written to be fast, in sets and not line by line, and with what the text asks for: the district's counter, taxes and
discount, prices of the items, stock locked, checked and topped up below ten, an order with its lines and the new-order
row. What it is not: a TPC-C result. There is no mix, no think time, and 8 warehouses hold a tenth of the items and
customers.
"""

from __future__ import annotations

from typing import Any

import psycopg

WAREHOUSES, ITEMS, CUSTOMERS, LINES = 8, 10_000, 300, 10

_SCHEMA = """
create table warehouse (w_id integer primary key, w_tax numeric(4, 4) not null, w_ytd numeric(12, 2) not null);
create table district (d_w_id integer, d_id integer, d_tax numeric(4, 4) not null, d_ytd numeric(12, 2) not null,
  d_next_o_id integer not null, primary key (d_w_id, d_id));
create table customer (c_w_id integer, c_d_id integer, c_id integer, c_discount numeric(4, 4) not null,
  c_credit char(2) not null, c_last varchar(16) not null, c_data varchar(500) not null,
  primary key (c_w_id, c_d_id, c_id));
create table item (i_id integer primary key, i_name varchar(24) not null, i_price numeric(5, 2) not null,
  i_data varchar(50) not null);
create table stock (s_w_id integer, s_i_id integer, s_quantity integer not null, s_dist char(24)[] not null,
  s_ytd integer not null, s_order_cnt integer not null, s_remote_cnt integer not null, s_data varchar(50) not null,
  primary key (s_w_id, s_i_id));
create table orders (o_w_id integer, o_d_id integer, o_id integer, o_c_id integer not null,
  o_entry_d timestamptz not null, o_carrier_id integer, o_ol_cnt integer not null, o_all_local boolean not null,
  primary key (o_w_id, o_d_id, o_id), foreign key (o_w_id, o_d_id, o_c_id) references customer);
create table new_order (no_w_id integer, no_d_id integer, no_o_id integer, primary key (no_w_id, no_d_id, no_o_id),
  foreign key (no_w_id, no_d_id, no_o_id) references orders);
create table order_line (ol_w_id integer, ol_d_id integer, ol_o_id integer, ol_number integer, ol_i_id integer not null,
  ol_supply_w_id integer not null, ol_delivery_d timestamptz, ol_quantity integer not null,
  ol_amount numeric(6, 2) not null, ol_dist_info char(24) not null, primary key (ol_w_id, ol_d_id, ol_o_id, ol_number),
  foreign key (ol_w_id, ol_d_id, ol_o_id) references orders,
  foreign key (ol_supply_w_id, ol_i_id) references stock);

create procedure new_order(warehouse integer, district integer, customer integer, items integer[],
  supplies integer[], quantities integer[], inout total numeric default null)
language plpgsql
as $$
declare
  v_now constant timestamptz := now();
  v_lines constant integer := cardinality(items);
  v_found integer;
  v_order integer;
  v_taxes numeric;
  v_discount numeric;
begin
  select w_tax into v_taxes from warehouse where w_id = new_order.warehouse;
  update district set d_next_o_id = d_next_o_id + 1 where d_w_id = new_order.warehouse and d_id = new_order.district
  returning d_next_o_id - 1, v_taxes + d_tax into v_order, v_taxes;
  select c_discount into v_discount
    from customer where c_w_id = new_order.warehouse and c_d_id = new_order.district and c_id = new_order.customer;
  insert into orders values (new_order.warehouse, new_order.district, v_order, new_order.customer, v_now, null, v_lines,
    new_order.warehouse = all (supplies));
  insert into new_order values (new_order.warehouse, new_order.district, v_order);

  -- in the order of the index, so that no two of them deadlock; an item that does not exist ends the transaction
  perform from (select distinct w, i from unnest(supplies, items) as line (w, i)) as wanted
     join stock on s_w_id = wanted.w and s_i_id = wanted.i
    order by s_w_id, s_i_id
      for update of stock;
  get diagnostics v_found = row_count;
  if v_found < (select count(*) from (select distinct w, i from unnest(supplies, items) as line (w, i)) as wanted) then
    raise exception 'an item number is not valid';
  end if;
  update stock
     set s_quantity = s_quantity - wanted.quantity + case when s_quantity - wanted.quantity >= 10 then 0 else 91 end,
         s_ytd = s_ytd + wanted.quantity,
         s_order_cnt = s_order_cnt + wanted.lines,
         s_remote_cnt = s_remote_cnt + case when s_w_id = new_order.warehouse then 0 else wanted.lines end
    from (select w, i, sum(q)::integer as quantity, count(*)::integer as lines
            from unnest(supplies, items, quantities) as line (w, i, q) group by w, i) as wanted
   where s_w_id = wanted.w and s_i_id = wanted.i;
  insert into order_line
  select new_order.warehouse, new_order.district, v_order, line.number, line.i, line.w, null, line.q,
         line.q * i_price, s_dist[new_order.district]
    from unnest(supplies, items, quantities) with ordinality as line (w, i, q, number)
    join item on i_id = line.i
    join stock on s_w_id = line.w and s_i_id = line.i;
  select sum(ol_amount) * (1 - v_discount) * (1 + v_taxes) into new_order.total
    from order_line where ol_w_id = new_order.warehouse and ol_d_id = new_order.district and ol_o_id = v_order;
end;
$$;
"""

_ROWS = """
insert into warehouse select w, 0.08, 300000 from generate_series(1, WAREHOUSES) as w;
insert into district select w, d, 0.05, 30000, 1
  from generate_series(1, WAREHOUSES) as w, generate_series(1, 10) as d;
insert into customer select w, d, c, 0.1, 'GC', 'BARBARBAR', repeat('c', 400)
  from generate_series(1, WAREHOUSES) as w, generate_series(1, 10) as d, generate_series(1, CUSTOMERS) as c;
insert into item select i, 'item ' || i, 1 + i % 100, repeat('i', 40) from generate_series(1, ITEMS) as i;
insert into stock select w, i, 10 + i % 91, array_fill(repeat('s', 24), array[10]), 0, 0, 0, repeat('s', 40)
  from generate_series(1, WAREHOUSES) as w, generate_series(1, ITEMS) as i;
"""


def create(
    conn: psycopg.Connection[Any], *, warehouses: int = WAREHOUSES, items: int = ITEMS, customers: int = CUSTOMERS
) -> None:
    """The tables, the procedure and the rows; nothing is left to plan from empty statistics."""
    rows = _ROWS.replace("WAREHOUSES", f"{warehouses}").replace("ITEMS", f"{items}")
    conn.execute(_SCHEMA.encode())
    conn.execute(rows.replace("CUSTOMERS", f"{customers}").encode())
    conn.execute("vacuum analyze")


def script() -> str:
    """pgbench's: a client's warehouse is its own, one line in a hundred comes from another, items are non-uniform."""
    numbers = range(1, LINES + 1)
    items = [f"\\set i{n} (random(0, 1023) | random(1, {ITEMS})) % {ITEMS} + 1" for n in numbers]
    supplies = [f"\\set s{n} case when random(1, 100) = 1 then random(1, {WAREHOUSES}) else :w end" for n in numbers]
    quantities = [f"\\set q{n} random(1, 10)" for n in numbers]
    given = [f"\\set w :client_id % {WAREHOUSES} + 1", "\\set d random(1, 10)"]
    given += [f"\\set c (random(0, 255) | random(1, {CUSTOMERS})) % {CUSTOMERS} + 1"]

    def array(letter: str) -> str:
        return f"array[{', '.join(f':{letter}{n}' for n in numbers)}]::integer[]"

    call = f"call new_order(:w, :d, :c, {array('i')}, {array('s')}, {array('q')});"
    return "\n".join([*given, *items, *supplies, *quantities, call, ""])
