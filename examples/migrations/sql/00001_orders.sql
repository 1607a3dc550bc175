-- +goose Up
create table orders (
    id text primary key,
    item text not null,
    quantity int not null check (quantity > 0)
);

-- +goose Down
drop table orders;
